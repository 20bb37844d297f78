//! Branch and bound over all orders and strategies of a small graph, memory limits included.
//!
//! A node is a partial schedule. It branches over the rank whose next task can end first (Giffler and Thompson 1960). Each child runs
//! one of the tasks of this rank that can start before that end. One more child runs none of them, if they take memory that other
//! tasks may need first. A node is pruned if the preemptive bound of some rank is too high, or if an earlier node had run the same
//! tasks and was at least as early everywhere.

use std::collections::HashMap;

use crate::bounds::{Jackson, MachineJob, times};
use crate::problem::{Choice, Problem, Solution};

/// Maximum number of entries in the table of finished nodes.
const MAX_STATES: usize = 2_000_000;
/// Maximum number of vectors kept for one set of executed tasks.
const MAX_VECTORS: usize = 12;

/// The result of branch and bound.
pub(crate) struct BranchOutcome {
    /// The best solution.
    pub(crate) best: Solution,
    /// True if no solution is better.
    pub(crate) proven: bool,
}

/// Depth-first branch and bound.
pub(crate) struct Branch<'a, F> {
    problem: &'a Problem,
    /// Returns true to stop; receives the number of nodes so far.
    ended: F,
    stopped: bool,
    nodes: u64,
    best: Solution,
    /// The duration of each task: of its strategy once chosen, else the shortest.
    dur: Vec<f64>,
    /// The shortest duration of each task over its strategies.
    shortest: Vec<f64>,
    tail: Vec<f64>,
    state: PartialSchedule,
    /// The earliest start of each remaining task.
    head: Vec<f64>,
    jackson: Jackson,
    order: Vec<Vec<u32>>,
    choice: Choice,
    /// Finished nodes: the executed tasks, and when ranks and inputs were ready.
    seen: HashMap<Vec<u64>, Vec<Vec<f64>>>,
    states: usize,
}

/// A partial schedule.
struct PartialSchedule {
    done: usize,
    executed: Vec<bool>,
    /// Tasks that must not be next on their rank.
    refused: Vec<bool>,
    refusals: usize,
    waiting: Vec<u32>,
    ready: Vec<f64>,
    free: Vec<f64>,
    live: Vec<u64>,
    /// For each rank, the bytes of the pairs that have not begun, each under its largest strategy.
    to_come: Vec<u64>,
    makespan: f64,
}

/// A child of a node: a task with a strategy.
#[derive(Clone, Copy)]
struct Child {
    task: u32,
    choice: u16,
    start: f64,
}

/// The children of a node.
struct Children {
    /// The rank over which the node branches.
    rank: usize,
    /// The task of the rank that can end first.
    first: usize,
    /// The tasks of the rank that can start before that end.
    tasks: Vec<Child>,
}

/// What a step changed, to undo it.
struct Undo {
    free: f64,
    live: u64,
    makespan: f64,
    ready: Vec<f64>,
    refused: Vec<u32>,
}

impl<'a, F: FnMut(u64) -> bool> Branch<'a, F> {
    /// Starts from a known solution. `ended` receives the number of nodes so far and returns true to stop.
    pub(crate) fn new(problem: &'a Problem, first: Solution, ended: F) -> Self {
        let (n, ranks) = (problem.n, problem.ranks);
        let times = times(problem);
        let (shortest, tail) = (times.dur, times.tail);
        let mut to_come = vec![0u64; ranks];
        for (pair, strategies) in problem.pairs.iter().zip(&problem.strategies) {
            let largest = strategies.iter().map(|s| s.bytes).max().unwrap_or(0);
            let sum = &mut to_come[problem.rank[pair.forward.index()] as usize];
            *sum = sum.saturating_add(largest);
        }
        let state = PartialSchedule {
            done: 0,
            executed: vec![false; n],
            refused: vec![false; n],
            refusals: 0,
            waiting: problem.in_degrees(),
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

    /// Runs to the end, or until `ended` returns true.
    pub(crate) fn run(mut self) -> BranchOutcome {
        self.node();
        BranchOutcome { best: self.best, proven: !self.stopped }
    }

    /// Only solutions below this are worth finding.
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
        let Some(Children { rank, first, tasks: children }) = self.children() else { return };
        for &child in &children {
            let change = self.execute(child);
            self.node();
            self.undo(child, change);
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

    /// A lower bound on the makespan of every completion of this partial schedule.
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
            let job =
                |t: usize| MachineJob { head: self.head[t], dur: self.dur[t], tail: self.tail[t] };
            longest = longest.max(self.jackson.bound(left.map(job)));
        }
        longest
    }

    /// The children of the current node; `None` if no task can run.
    fn children(&self) -> Option<Children> {
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
        Some(Children { rank, first, tasks: children })
    }

    /// The strategies with which a task fits now; only forwards have a choice.
    fn fitting(&self, t: usize) -> impl Iterator<Item = u16> {
        let problem = self.problem;
        let pair = problem.pair[t] as usize;
        let forward = problem.pairs[pair].forward.index() == t;
        let rank = problem.rank[t] as usize;
        let left = problem.budget[rank].map(|b| b - self.state.live[rank].min(b));
        let strategies = if forward { &problem.strategies[pair][..] } else { &[] };
        let useful = move |i: usize| {
            let s = &strategies[i];
            left.is_none_or(|left| s.bytes <= left)
                && !strategies.iter().enumerate().any(|(j, o)| {
                    let no_worse = o.forward_s <= s.forward_s
                        && o.backward_s <= s.backward_s
                        && o.bytes <= s.bytes;
                    no_worse && (o != s || j < i)
                })
        };
        let own = (!forward).then_some(self.choice[pair]);
        (0..strategies.len()).filter(move |&i| useful(i)).map(|i| i as u16).chain(own)
    }

    /// The longest duration of a task over the strategies that are still open.
    fn longest(&self, t: usize) -> f64 {
        let pair = self.problem.pair[t] as usize;
        if self.problem.pairs[pair].forward.index() != t {
            return self.dur[t];
        }
        self.problem.strategies[pair].iter().map(|s| s.forward_s).fold(0.0, f64::max)
    }

    /// True if postponing `first` may help although no other task can start before its end: `first` takes memory that later tasks of
    /// the rank may lack.
    fn may_wait(&self, rank: usize, first: usize) -> bool {
        let pair = self.problem.pair[first] as usize;
        let Some(budget) = self.problem.budget[rank] else { return false };
        self.problem.pairs[pair].forward.index() == first
            && self.problem.strategies[pair].iter().any(|s| s.bytes > 0)
            && self.state.live[rank].saturating_add(self.state.to_come[rank]) > budget
    }

    /// Sets whether these tasks are refused as the next task of their rank.
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
            let strategy = problem.strategies[pair][child.choice as usize];
            self.choice[pair] = child.choice;
            self.dur[t] = strategy.forward_s;
            if let Some(b) = p.backward {
                self.dur[b.index()] = strategy.backward_s;
            }
            self.state.live[rank] += strategy.bytes;
            self.state.to_come[rank] =
                self.state.to_come[rank].saturating_sub(self.largest_bytes(pair));
        }
        if p.release().index() == t {
            self.state.live[rank] -= problem.strategies[pair][self.choice[pair] as usize].bytes;
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

    fn undo(&mut self, child: Child, undo: Undo) {
        let problem = self.problem;
        let t = child.task as usize;
        let (pair, rank) = (problem.pair[t] as usize, problem.rank[t] as usize);
        let p = &problem.pairs[pair];
        if p.forward.index() == t {
            self.dur[t] = self.shortest[t];
            if let Some(b) = p.backward {
                self.dur[b.index()] = self.shortest[b.index()];
            }
            self.state.to_come[rank] =
                self.state.to_come[rank].saturating_add(self.largest_bytes(pair));
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

    /// The bytes of a pair under its largest strategy.
    fn largest_bytes(&self, pair: usize) -> u64 {
        self.problem.strategies[pair].iter().map(|s| s.bytes).max().unwrap_or(0)
    }

    /// The key of a node is its executed tasks and the strategies of its live pairs. Its vector holds the times at which each rank, and
    /// each task with some finished predecessor, is ready.
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
        if all.len() < MAX_VECTORS && self.states < MAX_STATES {
            all.push(vector);
            self.states += 1;
        }
    }
}

/// True if no time of `a` is later than the same time of `b`.
fn dominates(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a <= b)
}
