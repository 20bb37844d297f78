//! A total order that runs all tasks one at a time within memory. It proves that a graph is feasible, and it keeps every schedule
//! free of deadlock (see [`super::reserve`]).
//!
//! Tasks that hold no bytes run as soon as they are ready: that only frees memory and enables other tasks. So the choice is among
//! forwards that hold bytes. Three methods are tried: microbatch by microbatch; on demand of the next task that frees memory; and,
//! on small graphs, a search that remembers the states it failed from.

use std::collections::HashSet;

use dip_core::ScheduleError;

use crate::problem::{Costs, Problem};

/// States after which the search for a sequence gives up.
const MAX_STATES: usize = 30_000;
/// Most tasks of a graph that is searched.
const MAX_SEARCHED_TASKS: usize = 600;

/// Returns a sequence of all tasks that fits in memory.
///
/// # Errors
/// [`ScheduleError::Infeasible`] names the rank that ran out of memory, with the least that any attempt needed.
pub(crate) fn feasible_sequence(
    problem: &Problem,
    costs: &Costs,
) -> Result<Vec<u32>, ScheduleError> {
    if !problem.is_limited() {
        return Ok(problem.topo.clone());
    }
    if let Some(error) = too_large(problem, costs) {
        return Err(error);
    }
    let run = Run::new(problem, costs);
    let in_turn: Vec<f64> = problem.microbatch.iter().map(|&m| f64::from(m)).collect();
    let attempts = [by_key(run.clone(), &in_turn), on_demand(run.clone())];
    let mut stuck: Option<Stuck> = None;
    for attempt in attempts {
        match attempt {
            Ok(sequence) => return Ok(sequence),
            Err(s) => {
                stuck = Some(stuck.map_or(s, |t| if s.excess() < t.excess() { s } else { t }))
            }
        }
    }
    if problem.n <= MAX_SEARCHED_TASKS
        && let Some(sequence) = search(run)
    {
        return Ok(sequence);
    }
    let stuck = stuck.unwrap_or_default();
    let fixed = problem.static_bytes[stuck.rank];
    Err(problem.infeasible(stuck.rank, stuck.needed.saturating_add(fixed)))
}

/// A sequence that takes tasks by their keys, smallest first. `None` if it runs out of memory.
pub(crate) fn sequence_by(problem: &Problem, costs: &Costs, keys: &[f64]) -> Option<Vec<u32>> {
    if !problem.is_limited() {
        return Some(problem.topo.clone());
    }
    by_key(Run::new(problem, costs), keys).ok()
}

/// Sequences that run microbatches one after another.
pub(crate) struct MicrobatchSequences {
    /// The sequence of each microbatch by itself; `None` if microbatches depend on each other or memory is unlimited.
    by_microbatch: Option<Vec<Vec<u32>>>,
}

impl MicrobatchSequences {
    /// Computes the sequence of every microbatch by itself.
    pub(crate) fn new(problem: &Problem, costs: &Costs) -> Self {
        if !problem.is_limited() {
            return Self { by_microbatch: None };
        }
        let of = |t: u32| problem.microbatch[t as usize] as usize;
        let independent = (0..problem.n as u32)
            .all(|t| problem.succs.of_task(t as usize).iter().all(|&(s, _)| of(s) == of(t)));
        let free = Run::unlimited(problem, costs);
        let keys: Vec<f64> = problem.microbatch.iter().map(|&m| f64::from(m)).collect();
        let Some(sequence) = by_key(free, &keys).ok().filter(|_| independent) else {
            return Self { by_microbatch: None };
        };
        let mut own = vec![Vec::new(); problem.microbatches()];
        for t in sequence {
            own[of(t)].push(t);
        }
        Self { by_microbatch: Some(own) }
    }

    /// The microbatches one after another, the smallest turn first. `None` if that runs out of memory.
    pub(crate) fn in_turn(
        &self,
        problem: &Problem,
        costs: &Costs,
        turn: &[f64],
    ) -> Option<Vec<u32>> {
        if let Some(own) = &self.by_microbatch {
            let mut order: Vec<usize> = (0..own.len()).collect();
            order.sort_by(|&a, &b| turn[a].total_cmp(&turn[b]));
            let sequence: Vec<u32> = order.into_iter().flat_map(|m| &own[m]).copied().collect();
            if fits(problem, costs, &sequence) {
                return Some(sequence);
            }
        }
        let keys: Vec<f64> = problem.microbatch.iter().map(|&m| turn[m as usize]).collect();
        sequence_by(problem, costs, &keys)
    }
}

/// True if a sequence fits in memory.
fn fits(problem: &Problem, costs: &Costs, sequence: &[u32]) -> bool {
    let mut live = vec![0u64; problem.ranks];
    sequence.iter().all(|&t| {
        let rank = problem.rank[t as usize] as usize;
        let held = live[rank].saturating_add(costs.acquire[t as usize]);
        live[rank] = held.saturating_sub(costs.release[t as usize]);
        problem.budget[rank].is_none_or(|budget| held <= budget)
    })
}

/// A sequence that agrees with an order, which must not deadlock. It fits in memory if the order does, because the bytes that a
/// rank holds depend only on the order of its own tasks.
pub(crate) fn sequence_of(problem: &Problem, order: &[Vec<u32>]) -> Vec<u32> {
    let mut waiting = problem.in_degrees();
    let mut next = vec![0usize; problem.ranks];
    let mut sequence = Vec::with_capacity(problem.n);
    let mut runnable: Vec<usize> = (0..problem.ranks).collect();
    while let Some(rank) = runnable.pop() {
        while let Some(&t) = order[rank].get(next[rank]).filter(|&&t| waiting[t as usize] == 0) {
            next[rank] += 1;
            sequence.push(t);
            for &(s, _) in problem.succs.of_task(t as usize) {
                waiting[s as usize] -= 1;
                if waiting[s as usize] == 0 {
                    runnable.push(problem.rank[s as usize] as usize);
                }
            }
        }
    }
    sequence
}

/// The error for the rank whose largest pair exceeds its memory most; no order can help there. `None` if all pairs fit alone.
fn too_large(problem: &Problem, costs: &Costs) -> Option<ScheduleError> {
    let excess = |t: usize| {
        let rank = problem.rank[t] as usize;
        let over = costs.acquire[t].checked_sub(problem.budget[rank]?)?;
        (over > 0).then_some((over, rank, costs.acquire[t]))
    };
    let (_, rank, bytes) = (0..problem.n).filter_map(excess).max_by_key(|e| e.0)?;
    Some(problem.infeasible(rank, bytes.saturating_add(problem.static_bytes[rank])))
}

/// Where an attempt ran out of memory.
#[derive(Debug, Clone, Copy, Default)]
struct Stuck {
    rank: usize,
    /// Bytes of live pairs that would have been needed.
    needed: u64,
    budget: u64,
}

impl Stuck {
    fn excess(&self) -> u64 {
        self.needed.saturating_sub(self.budget)
    }
}

/// A sequence in the making.
#[derive(Clone)]
struct Run<'a> {
    problem: &'a Problem,
    costs: &'a Costs,
    budget: Vec<Option<u64>>,
    waiting: Vec<u32>,
    live: Vec<u64>,
    /// Ready tasks that still hold bytes after their end.
    ready: Vec<u32>,
    /// Ready tasks that hold nothing after their end.
    free: Vec<u32>,
    sequence: Vec<u32>,
    /// A hash of the set of executed tasks.
    hash: u64,
}

impl<'a> Run<'a> {
    fn new(problem: &'a Problem, costs: &'a Costs) -> Self {
        Self::within(problem, costs, problem.budget.clone())
    }

    fn unlimited(problem: &'a Problem, costs: &'a Costs) -> Self {
        Self::within(problem, costs, vec![None; problem.ranks])
    }

    fn within(problem: &'a Problem, costs: &'a Costs, budget: Vec<Option<u64>>) -> Self {
        let mut run = Self {
            problem,
            costs,
            budget,
            waiting: problem.in_degrees(),
            live: vec![0; problem.ranks],
            ready: Vec::new(),
            free: Vec::new(),
            sequence: Vec::with_capacity(problem.n),
            hash: 0,
        };
        for t in 0..problem.n {
            if run.waiting[t] == 0 {
                run.enable(t);
            }
        }
        run
    }

    fn enable(&mut self, t: usize) {
        let holds = self.costs.acquire[t] > self.costs.release[t];
        if holds { self.ready.push(t as u32) } else { self.free.push(t as u32) }
    }

    fn fits(&self, t: usize) -> bool {
        let rank = self.problem.rank[t] as usize;
        self.budget[rank].is_none_or(|b| self.live[rank].saturating_add(self.costs.acquire[t]) <= b)
    }

    /// Runs a ready task. The caller has removed it from its list.
    fn execute(&mut self, t: usize) {
        let rank = self.problem.rank[t] as usize;
        self.live[rank] = self.live[rank]
            .saturating_add(self.costs.acquire[t])
            .saturating_sub(self.costs.release[t]);
        self.sequence.push(t as u32);
        self.hash ^= mix(t as u64);
        for i in 0..self.problem.succs.of_task(t).len() {
            let s = self.problem.succs.of_task(t)[i].0 as usize;
            self.waiting[s] -= 1;
            if self.waiting[s] == 0 {
                self.enable(s);
            }
        }
    }

    /// Runs all ready tasks that fit and hold nothing after their end.
    fn drain(&mut self) {
        let mut i = 0;
        while i < self.free.len() {
            let t = self.free[i] as usize;
            if self.fits(t) {
                self.free.swap_remove(i);
                self.execute(t);
                i = 0;
            } else {
                i += 1;
            }
        }
    }

    fn done(&self) -> bool {
        self.sequence.len() == self.problem.n
    }

    /// The ready task that exceeds its budget least.
    fn stuck(&self) -> Stuck {
        let needs = self.ready.iter().chain(&self.free).map(|&t| {
            let rank = self.problem.rank[t as usize] as usize;
            let needed = self.live[rank].saturating_add(self.costs.acquire[t as usize]);
            Stuck { rank, needed, budget: self.budget[rank].unwrap_or(u64::MAX) }
        });
        needs.filter(|s| s.excess() > 0).min_by_key(Stuck::excess).unwrap_or_default()
    }
}

/// A random word for a task (the finaliser of SplitMix64).
fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Runs the ready task with the least key first.
fn by_key(mut run: Run<'_>, keys: &[f64]) -> Result<Vec<u32>, Stuck> {
    loop {
        run.drain();
        if run.done() {
            return Ok(run.sequence);
        }
        let fitting = (0..run.ready.len()).filter(|&i| run.fits(run.ready[i] as usize));
        let key = |i: usize| keys[run.ready[i] as usize];
        let first = fitting
            .min_by(|&a, &b| key(a).total_cmp(&key(b)).then(run.ready[a].cmp(&run.ready[b])));
        let Some(i) = first else { return Err(run.stuck()) };
        let t = run.ready.swap_remove(i);
        run.execute(t as usize);
    }
}

/// For each task that frees memory, in topological order, runs all it still needs and then the task.
fn on_demand(mut run: Run<'_>) -> Result<Vec<u32>, Stuck> {
    let problem = run.problem;
    let mut position = vec![0u32; problem.n];
    for (i, &t) in problem.topo.iter().enumerate() {
        position[t as usize] = i as u32;
    }
    let mut executed = vec![false; problem.n];
    let mut seen = 0;
    for &goal in &problem.topo {
        if run.costs.release[goal as usize] == 0 {
            continue;
        }
        loop {
            run.drain();
            for &t in &run.sequence[seen..] {
                executed[t as usize] = true;
            }
            seen = run.sequence.len();
            if executed[goal as usize] {
                break;
            }
            let needed = ancestors(problem, goal as usize, &executed);
            let fitting = (0..run.ready.len())
                .filter(|&i| needed[run.ready[i] as usize] && run.fits(run.ready[i] as usize));
            let Some(i) = fitting.min_by_key(|&i| position[run.ready[i] as usize]) else {
                return Err(run.stuck());
            };
            let t = run.ready.swap_remove(i);
            run.execute(t as usize);
        }
    }
    run.drain();
    while let Some(t) = run.ready.pop() {
        run.execute(t as usize);
        run.drain();
    }
    if run.done() { Ok(run.sequence) } else { Err(run.stuck()) }
}

/// Marks a task and its ancestors that have not run.
fn ancestors(problem: &Problem, goal: usize, executed: &[bool]) -> Vec<bool> {
    let mut needed = vec![false; problem.n];
    let mut stack = vec![goal];
    needed[goal] = true;
    while let Some(t) = stack.pop() {
        for &(p, _) in problem.preds.of_task(t) {
            if !needed[p as usize] && !executed[p as usize] {
                needed[p as usize] = true;
                stack.push(p as usize);
            }
        }
    }
    needed
}

/// Depth-first search over the forwards that hold bytes. A state that holds nothing needs no backtracking beyond it.
fn search(mut run: Run<'_>) -> Option<Vec<u32>> {
    run.drain();
    let mut failed: HashSet<u64> = HashSet::new();
    let mut stack = vec![run];
    while let Some(run) = stack.pop() {
        if run.done() {
            return Some(run.sequence);
        }
        if !failed.insert(run.hash) || failed.len() > MAX_STATES {
            continue;
        }
        if run.live.iter().all(|&l| l == 0) {
            stack.clear();
        }
        let mut choices: Vec<u32> = run.ready.clone();
        choices.retain(|&t| run.fits(t as usize));
        choices.sort_by_key(|&t| std::cmp::Reverse((run.problem.microbatch[t as usize], t)));
        for t in choices {
            let mut next = run.clone();
            next.ready.retain(|&other| other != t);
            next.execute(t as usize);
            next.drain();
            stack.push(next);
        }
    }
    None
}
