//! A partial sequence.

use crate::problem::{Problem, TaskCosts};

/// Where an attempt ran out of memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stuck {
    pub(super) rank: usize,
    /// Bytes that the rank would have to hold.
    pub(super) needed: u64,
    budget: u64,
}

impl Stuck {
    /// Bytes beyond the budget.
    pub(super) fn excess(&self) -> u64 {
        self.needed.saturating_sub(self.budget)
    }
}

/// A partial sequence of tasks, with the state after its last task.
#[derive(Clone)]
pub(super) struct PartialSequence<'a> {
    pub(super) problem: &'a Problem,
    pub(super) costs: &'a TaskCosts,
    budget: Vec<Option<u64>>,
    /// Unfinished predecessors of each task.
    waiting: Vec<u32>,
    /// Bytes that each rank holds.
    pub(super) live: Vec<u64>,
    /// Ready tasks that still hold bytes after their end.
    pub(super) ready: Vec<u32>,
    /// Ready tasks that hold nothing after their end.
    free: Vec<u32>,
    pub(super) sequence: Vec<u32>,
    /// A hash of the set of executed tasks.
    pub(super) hash: u64,
}

impl<'a> PartialSequence<'a> {
    /// The empty sequence within the memory of the graph.
    pub(super) fn new(problem: &'a Problem, costs: &'a TaskCosts) -> Self {
        Self::within(problem, costs, problem.budget.clone())
    }

    /// The empty sequence without memory limits.
    pub(super) fn unlimited(problem: &'a Problem, costs: &'a TaskCosts) -> Self {
        Self::within(problem, costs, vec![None; problem.ranks])
    }

    fn within(problem: &'a Problem, costs: &'a TaskCosts, budget: Vec<Option<u64>>) -> Self {
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

    /// Adds a task whose predecessors have run to its list.
    fn enable(&mut self, t: usize) {
        let holds = self.costs.acquire[t] > self.costs.release[t];
        if holds { self.ready.push(t as u32) } else { self.free.push(t as u32) }
    }

    /// True if a task fits in memory now.
    pub(super) fn fits(&self, t: usize) -> bool {
        let rank = self.problem.rank[t] as usize;
        self.budget[rank].is_none_or(|b| self.live[rank].saturating_add(self.costs.acquire[t]) <= b)
    }

    /// Runs a ready task. The caller has removed it from its list.
    pub(super) fn execute(&mut self, t: usize) {
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
    pub(super) fn drain(&mut self) {
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

    /// True if all tasks have run.
    pub(super) fn done(&self) -> bool {
        self.sequence.len() == self.problem.n
    }

    /// The ready task that exceeds its budget least.
    pub(super) fn stuck(&self) -> Stuck {
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
