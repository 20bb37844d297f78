//! The search of the paper: a reorderer proposes sequences of segment groups, dual-queue interleaving turns them into orders under
//! the smallest strategies, and pairs take faster strategies wherever they fit.

use rayon::prelude::*;

use super::{Mcts, Reorder};
use crate::ordering::{Interleaver, Reserve, Rules, RunSettings};
use crate::problem::Solution;
use crate::search::strategies::upgrade;
use crate::search::{RngStream, Search};

/// Share of the remaining time for a sample of the tree search.
const SHARE: f64 = 0.2;
/// The sample takes the remaining iterations divided by this.
const ITERATIONS_DIVISOR: u64 = 20;
/// Approximate number of sequences in one round of the tree search.
const SEQUENCES_PER_ROUND: u64 = 10;
/// Maximum ratio of the makespan in the order of the batch to the best makespan; above it, the sample is skipped.
const PROMISING: f64 = 1.1;

/// Runs a reorderer until the search is over.
pub(in crate::search) fn run(search: &mut Search<'_>, reorder: &mut dyn Reorder) {
    let mut round = 0;
    while !search.is_over() {
        propose(search, reorder, round);
        round += 1;
    }
}

/// The tree search of the paper for a small share of the budget.
///
/// It is skipped if its first order is far longer than the best. It interleaves under the smallest strategies; if these are slow,
/// they mislead it.
pub(in crate::search) struct PaperSample {
    reorder: Mcts,
}

impl PaperSample {
    pub(in crate::search) fn new(search: &Search<'_>) -> Self {
        Self { reorder: Mcts::new(search.problem.groups) }
    }

    pub(in crate::search) fn run(mut self, search: &mut Search<'_>) {
        let in_order = interleave(search, &[(0..search.problem.groups as u32).collect()]);
        let limit = PROMISING * search.incumbent.best().makespan;
        if in_order.iter().all(|s| s.makespan > limit) {
            return;
        }
        let used = search.clock.time_share();
        let until = used + SHARE * (1.0 - used).max(0.0);
        let left = search.clock.iterations_left();
        let rounds = left.map_or(u64::MAX, |left| left / ITERATIONS_DIVISOR / SEQUENCES_PER_ROUND);
        let mut round = 0;
        while round < rounds && !search.clock.is_past(until) && !search.is_over() {
            propose(search, &mut self.reorder, round);
            round += 1;
        }
    }
}

/// One round: proposes sequences, runs them, and learns.
fn propose(search: &mut Search<'_>, reorder: &mut dyn Reorder, round: u64) {
    let sequences = reorder.propose(&mut search.rng(RngStream::Reorder, round));
    let found = interleave(search, &sequences);
    let seconds: Vec<f64> = found.iter().map(|s| s.makespan).collect();
    reorder.learn(&seconds);
    search.clock.count(sequences.len() as u64);
    for solution in found {
        search.offer(solution);
    }
}

/// The working state of one thread.
struct SequenceWorker<'a> {
    interleaver: Interleaver<'a>,
    reserve: Reserve,
    keys: Vec<f64>,
}

/// Interleaves every sequence (phase 2) and upgrades its strategies (phase 3).
fn interleave(search: &Search<'_>, sequences: &[Vec<u32>]) -> Vec<Solution> {
    let problem = search.problem;
    let smallest = &search.levels[search.levels.len() - 1];
    let worker = || SequenceWorker {
        interleaver: Interleaver::new(problem),
        reserve: smallest.reserve.clone(),
        keys: vec![0.0; problem.n],
    };
    let run = |worker: &mut SequenceWorker<'_>, sequence: &Vec<u32>| {
        let mut position = vec![0.0; problem.groups];
        for (i, &group) in sequence.iter().enumerate() {
            position[group as usize] = i as f64;
        }
        // Inside a group, tasks run in the order of their dependencies.
        for (i, &t) in problem.topo.iter().enumerate() {
            let group = problem.group[t as usize] as usize;
            worker.keys[t as usize] = position[group] + i as f64 / problem.n as f64;
        }
        let settings =
            RunSettings { rules: Rules::default(), tail: &smallest.tail, cutoff_s: f64::INFINITY };
        let makespan =
            worker.interleaver.run(&smallest.costs, &mut worker.reserve, &worker.keys, settings);
        let mut solution = Solution {
            order: worker.interleaver.order(),
            choice: smallest.choice.clone(),
            makespan: makespan.unwrap_or(f64::INFINITY),
        };
        upgrade(problem, &mut solution, &mut || search.clock.is_past(1.0));
        solution
    };
    sequences.par_iter().map_init(worker, run).collect()
}
