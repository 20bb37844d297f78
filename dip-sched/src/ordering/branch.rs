//! Branch and bound over all orders and strategies of a small graph, memory limits included.
//!
//! A node is a partial schedule. The rank whose next task can end first goes next (Giffler and Thompson 1960): either one of
//! its tasks that can start before then, or, where that task takes memory that others may need before it, none of these.
//! Nodes are cut by the preemptive bound of every rank, and by earlier nodes that had run the same tasks and were at least as
//! early everywhere.

use std::collections::HashMap;

use crate::bounds::{Jackson, Job, times};
use crate::problem::Solution;
use crate::problem::{Choice, Problem};

/// Entries of the table of finished nodes.
const MOST_STATES: usize = 2_000_000;
/// Vectors kept for one set of tasks.
const MOST_VECTORS: usize = 12;

/// What a run came to.
pub(crate) struct Outcome {
    /// The best solution.
    pub(crate) best: Solution,
    /// Whether nothing can be better.
    pub(crate) proven: bool,
}

/// A depth-first run.
pub(crate) struct Branch<'a, F> {
    problem: &'a Problem,
    /// Asked now and then whether to stop.
    ended: F,
    stopped: bool,
    nodes: u64,
    best: Solution,
    /// The shortest duration of each task over its strategies, or that of the chosen one.
    dur: Vec<f64>,
    shortest: Vec<f64>,
    tail: Vec<f64>,
    state: State,
    head: Vec<f64>,
    jackson: Jackson,
    order: Vec<Vec<u32>>,
    choice: Choice,
    seen: HashMap<Vec<u64>, Vec<Vec<f64>>>,
    states: usize,
}

/// A partial schedule.
struct State {
    done: usize,
    executed: Vec<bool>,
    /// Tasks that may not be the next one on their rank.
    refused: Vec<bool>,
    refusals: usize,
    waiting: Vec<u32>,
    ready: Vec<f64>,
    free: Vec<f64>,
    live: Vec<u64>,
    /// Bytes that pairs which have not begun may take at most, a rank.
    to_come: Vec<u64>,
    makespan: f64,
}

/// A task with one strategy, as a child of a node.
#[derive(Clone, Copy)]
struct Child {
    task: u32,
    choice: u16,
    start: f64,
}

/// What a step changed, to take it back.
struct Undo {
    free: f64,
    live: u64,
    makespan: f64,
    ready: Vec<f64>,
    refused: Vec<u32>,
}

impl<'a, F: FnMut(u64) -> bool> Branch<'a, F> {
    /// A run that starts from a known solution; `ended` is told the nodes so far.
    pub(crate) fn new(problem: &'a Problem, first: Solution, ended: F) -> Self {
        let (n, ranks) = (problem.n, problem.ranks);
        let times = times(problem);
        let (shortest, tail) = (times.dur, times.tail);
        let mut to_come = vec![0u64; ranks];
        for (pair, strands) in problem.pairs.iter().zip(&problem.strands) {
            let most = strands.iter().map(|s| s.bytes).max().unwrap_or(0);
            let sum = &mut to_come[problem.rank[pair.forward.index()] as usize];
            *sum = sum.saturating_add(most);
        }
        let state = State {
            done: 0,
            executed: vec![false; n],
            refused: vec![false; n],
            refusals: 0,
            waiting: (0..n).map(|t| problem.preds.of_task(t).len() as u32).collect(),
            ready: vec![0.0; n],
            free: vec![0.0; ranks],
            live: vec![0; ranks],
            to_come,
            makespan: 0.0,
        };
        Self {
            problem,
            ended,
            stopped: false,
            nodes: 0,
            choice: first.choice.clone(),
            best: first,
            dur: shortest.clone(),
            shortest,
            tail,
            state,
            head: vec![0.0; n],
            jackson: Jackson::default(),
            order: vec![Vec::new(); ranks],
            seen: HashMap::new(),
            states: 0,
        }
    }

    /// Runs to the end, or until it is told to stop.
    pub(crate) fn run(mut self) -> Outcome {
        self.node();
        Outcome { best: self.best, proven: !self.stopped }
    }

    /// Nothing is worth finding that is not below this.
    fn limit(&self) -> f64 {
        self.best.makespan * (1.0 - 1e-9)
    }

    fn node(&mut self) {
        self.nodes += 1;
        if self.stopped || (self.nodes.is_multiple_of(256) && (self.ended)(self.nodes)) {
            self.stopped = true;
            return;
        }
        if self.state.done == self.problem.n {
            if self.state.makespan < self.limit() {
                let (order, choice) = (self.order.clone(), self.choice.clone());
                self.best = Solution { order, choice, makespan: self.state.makespan };
            }
            return;
        }
        if self.bound() >= self.limit() {
            return;
        }
        let (key, vector) = self.signature();
        if self.seen.get(&key).is_some_and(|all| all.iter().any(|v| dominates(v, &vector))) {
            return;
        }
        let Some((rank, first, children)) = self.children() else { return };
        for &child in &children {
            let undo = self.execute(child);
            self.node();
            self.take_back(child, undo);
            if self.stopped {
                return;
            }
        }
        if self.may_wait(rank, first) {
            let mut refused: Vec<u32> = children.iter().map(|c| c.task).collect();
            refused.dedup();
            self.refuse(&refused, true);
            self.node();
            self.refuse(&refused, false);
        }
        if !self.stopped && self.state.refusals == 0 {
            self.remember(key, vector);
        }
    }

    /// A time below which no schedule ends that continues this one.
    fn bound(&mut self) -> f64 {
        let (problem, state) = (self.problem, &self.state);
        let mut longest = state.makespan;
        for &t in &problem.topo {
            let t = t as usize;
            if state.executed[t] {
                continue;
            }
            let mut head = state.ready[t].max(state.free[problem.rank[t] as usize]);
            for &(p, comm) in problem.preds.of_task(t) {
                let p = p as usize;
                if !state.executed[p] {
                    head = head.max(self.head[p] + self.dur[p] + comm);
                }
            }
            self.head[t] = head;
            longest = longest.max(head + self.dur[t] + self.tail[t]);
        }
        let limit = self.limit();
        for tasks in &problem.by_rank {
            if longest >= limit {
                break;
            }
            let left = tasks.iter().map(|&t| t as usize).filter(|&t| !state.executed[t]);
            let job = |t: usize| Job { head: self.head[t], dur: self.dur[t], tail: self.tail[t] };
            longest = longest.max(self.jackson.bound(left.map(job)));
        }
        longest
    }

    /// The rank that goes next, its task that can end first, and all that can start before then.
    fn children(&self) -> Option<(usize, usize, Vec<Child>)> {
        let (problem, state) = (self.problem, &self.state);
        let mut first: Option<(f64, usize)> = None;
        let may = |t: usize| {
            !state.executed[t]
                && !state.refused[t]
                && state.waiting[t] == 0
                && self.fitting(t).next().is_some()
        };
        let start = |t: usize| state.ready[t].max(state.free[problem.rank[t] as usize]);
        for t in (0..problem.n).filter(|&t| may(t)) {
            let end = start(t) + self.longest(t);
            if first.is_none_or(|(least, _)| end < least) {
                first = Some((end, t));
            }
        }
        let (end, first) = first?;
        let rank = problem.rank[first] as usize;
        let mut children = Vec::new();
        for &t in &problem.by_rank[rank] {
            let at = t as usize;
            if may(at) && (start(at) < end || at == first) {
                let start = start(at);
                children.extend(self.fitting(at).map(|choice| Child { task: t, choice, start }));
            }
        }
        let key = |c: &Child| c.start - 0.25 * self.tail[c.task as usize];
        children.sort_by(|a, b| key(a).total_cmp(&key(b)).then(a.task.cmp(&b.task)));
        Some((rank, first, children))
    }

    /// The strategies with which a task may run now; only forwards have a choice.
    fn fitting(&self, t: usize) -> impl Iterator<Item = u16> {
        let problem = self.problem;
        let pair = problem.pair[t] as usize;
        let forward = problem.pairs[pair].forward.index() == t;
        let rank = problem.rank[t] as usize;
        let left = problem.budget[rank].map(|b| b - self.state.live[rank].min(b));
        let strands = if forward { &problem.strands[pair][..] } else { &[] };
        let useful = move |i: usize| {
            let s = &strands[i];
            left.is_none_or(|left| s.bytes <= left)
                && !strands.iter().enumerate().any(|(j, o)| {
                    let no_worse = o.forward_s <= s.forward_s
                        && o.backward_s <= s.backward_s
                        && o.bytes <= s.bytes;
                    no_worse && (o != s || j < i)
                })
        };
        let own = (!forward).then_some(self.choice[pair]);
        (0..strands.len()).filter(move |&i| useful(i)).map(|i| i as u16).chain(own)
    }

    /// The longest a task may take under any strategy that is still open.
    fn longest(&self, t: usize) -> f64 {
        let pair = self.problem.pair[t] as usize;
        if self.problem.pairs[pair].forward.index() != t {
            return self.dur[t];
        }
        self.problem.strands[pair].iter().map(|s| s.forward_s).fold(0.0, f64::max)
    }

    /// Whether it can pay that `rank` leaves `first` for later although nothing else can start before its end: only where
    /// `first` takes memory that the tasks to come may be short of.
    fn may_wait(&self, rank: usize, first: usize) -> bool {
        let pair = self.problem.pair[first] as usize;
        let Some(budget) = self.problem.budget[rank] else { return false };
        self.problem.pairs[pair].forward.index() == first
            && self.problem.strands[pair].iter().any(|s| s.bytes > 0)
            && self.state.live[rank].saturating_add(self.state.to_come[rank]) > budget
    }

    fn refuse(&mut self, tasks: &[u32], refused: bool) {
        for &t in tasks {
            self.state.refused[t as usize] = refused;
        }
        if refused {
            self.state.refusals += tasks.len();
        } else {
            self.state.refusals -= tasks.len();
        }
    }

    fn execute(&mut self, child: Child) -> Undo {
        let problem = self.problem;
        let t = child.task as usize;
        let (pair, rank) = (problem.pair[t] as usize, problem.rank[t] as usize);
        let p = &problem.pairs[pair];
        let refused: Vec<u32> = problem.by_rank[rank]
            .iter()
            .copied()
            .filter(|&t| self.state.refused[t as usize])
            .collect();
        self.refuse(&refused, false);
        let undo = Undo {
            free: self.state.free[rank],
            live: self.state.live[rank],
            makespan: self.state.makespan,
            ready: problem
                .succs
                .of_task(t)
                .iter()
                .map(|s| self.state.ready[s.0 as usize])
                .collect(),
            refused,
        };
        if p.forward.index() == t {
            let strand = problem.strands[pair][child.choice as usize];
            self.choice[pair] = child.choice;
            self.dur[t] = strand.forward_s;
            if let Some(b) = p.backward {
                self.dur[b.index()] = strand.backward_s;
            }
            self.state.live[rank] += strand.bytes;
            self.state.to_come[rank] = self.state.to_come[rank].saturating_sub(self.most(pair));
        }
        if p.release().index() == t {
            self.state.live[rank] -= problem.strands[pair][self.choice[pair] as usize].bytes;
        }
        let end = child.start + self.dur[t];
        let state = &mut self.state;
        state.executed[t] = true;
        state.done += 1;
        state.free[rank] = end;
        state.makespan = state.makespan.max(end);
        for &(s, comm) in problem.succs.of_task(t) {
            let s = s as usize;
            state.waiting[s] -= 1;
            state.ready[s] = state.ready[s].max(end + comm);
        }
        self.order[rank].push(child.task);
        undo
    }

    fn take_back(&mut self, child: Child, undo: Undo) {
        let problem = self.problem;
        let t = child.task as usize;
        let (pair, rank) = (problem.pair[t] as usize, problem.rank[t] as usize);
        let p = &problem.pairs[pair];
        if p.forward.index() == t {
            self.dur[t] = self.shortest[t];
            if let Some(b) = p.backward {
                self.dur[b.index()] = self.shortest[b.index()];
            }
            self.state.to_come[rank] = self.state.to_come[rank].saturating_add(self.most(pair));
        }
        self.order[rank].pop();
        let state = &mut self.state;
        state.executed[t] = false;
        state.done -= 1;
        (state.free[rank], state.live[rank], state.makespan) =
            (undo.free, undo.live, undo.makespan);
        for (&(s, _), &ready) in problem.succs.of_task(t).iter().zip(&undo.ready) {
            state.waiting[s as usize] += 1;
            state.ready[s as usize] = ready;
        }
        self.refuse(&undo.refused, true);
    }

    fn most(&self, pair: usize) -> u64 {
        self.problem.strands[pair].iter().map(|s| s.bytes).max().unwrap_or(0)
    }

    /// What has run, with the strategies of live pairs; and when each rank and each begun input is ready.
    fn signature(&self) -> (Vec<u64>, Vec<f64>) {
        let (problem, state) = (self.problem, &self.state);
        let mut key = vec![0u64; problem.n.div_ceil(64)];
        for t in (0..problem.n).filter(|&t| state.executed[t]) {
            key[t / 64] |= 1 << (t % 64);
        }
        let mut vector = state.free.clone();
        vector.push(state.makespan);
        for t in (0..problem.n).filter(|&t| !state.executed[t]) {
            if state.waiting[t] < problem.preds.of_task(t).len() as u32 {
                vector.push(state.ready[t].max(state.free[problem.rank[t] as usize]));
            }
        }
        if problem.has_choice {
            let live = |p: &usize| {
                let pair = &problem.pairs[*p];
                state.executed[pair.forward.index()] && !state.executed[pair.release().index()]
            };
            key.extend((0..problem.pairs.len()).filter(live).map(|p| u64::from(self.choice[p])));
        }
        (key, vector)
    }

    fn remember(&mut self, key: Vec<u64>, vector: Vec<f64>) {
        let all = self.seen.entry(key).or_default();
        let before = all.len();
        all.retain(|v| !dominates(&vector, v));
        self.states -= before - all.len();
        if all.len() < MOST_VECTORS && self.states < MOST_STATES {
            all.push(vector);
            self.states += 1;
        }
    }
}

/// Whether a partial schedule is nowhere later than another one.
fn dominates(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a <= b)
}
