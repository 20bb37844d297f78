//! Priorities by simple rules, each run through dual-queue interleaving.

use rayon::prelude::*;

use super::Search;
use super::level::Level;
use super::priorities::Priorities;
use crate::ordering::{Interleaver, QueueRule, Reserve, Rules, RunSettings};
use crate::problem::Solution;

/// A level is promising if its shortest makespan is at most this many times the shortest of all levels.
const PROMISING: f64 = 1.1;

/// Every ordering rule under every queue rule, at every level of memory.
pub(super) struct PriorityRules {
    trials: Vec<Trial>,
}

/// One run of the interleaving.
struct Trial {
    priorities: Priorities,
    rules: Rules,
    level: usize,
}

/// The working state of one thread.
struct TrialWorker<'a> {
    interleaver: Interleaver<'a>,
    /// One for each level.
    reserves: Vec<Reserve>,
    keys: Vec<f64>,
}

impl PriorityRules {
    pub(super) fn new(search: &Search<'_>) -> Self {
        let queue_rules = [
            QueueRule::Alternate,
            QueueRule::BackwardFirst,
            QueueRule::Single,
            QueueRule::ForwardFirst,
        ];
        let starts = |level: &Level| Priorities::starts(search.problem, &level.tail);
        let starts: Vec<Vec<Priorities>> = search.levels.iter().map(starts).collect();
        let mut trials = Vec::new();
        for patience in [0.0, 0.5] {
            for queue_rule in queue_rules {
                let rules = Rules { queue_rule, patience, ..Rules::default() };
                for start in 0..starts[0].len() {
                    // Levels are innermost: if time runs out, every level has been tried under the first rules.
                    for (level, starts) in starts.iter().enumerate() {
                        trials.push(Trial { priorities: starts[start].clone(), rules, level });
                    }
                }
            }
        }
        Self { trials }
    }

    /// Runs all trials and keeps the best order. Returns the promising levels, the best first.
    pub(super) fn run(self, search: &mut Search<'_>) -> Vec<usize> {
        let this = &*search;
        // At least one trial runs, however little time is left: the orders so far may be many times longer.
        let rate = |worker: &mut TrialWorker<'_>, (i, trial): (usize, &Trial)| {
            let late = i > 0 && this.clock.is_past(0.5 * this.share_of_tournaments());
            let makespan = if late { None } else { worker.run(this, trial) };
            makespan.unwrap_or(f64::INFINITY)
        };
        let worker = || TrialWorker::new(this);
        let seconds: Vec<f64> = self.trials.par_iter().enumerate().map_init(worker, rate).collect();
        let found = self.best(this, &seconds);
        let levels = self.promising_levels(this.levels.len(), &seconds);
        search.clock.count(self.trials.len() as u64);
        if let Some(found) = found {
            search.offer(found);
        }
        levels
    }

    /// The order of the best trial, if it is shorter than the best so far.
    fn best(&self, search: &Search<'_>, seconds: &[f64]) -> Option<Solution> {
        let first = (0..seconds.len()).min_by(|&a, &b| seconds[a].total_cmp(&seconds[b]))?;
        if seconds[first] >= search.incumbent.best().makespan {
            return None;
        }
        let mut worker = TrialWorker::new(search);
        worker.run(search, &self.trials[first]);
        let choice = search.levels[self.trials[first].level].choice.clone();
        Some(Solution { order: worker.interleaver.order(), choice, makespan: seconds[first] })
    }

    fn promising_levels(&self, levels: usize, seconds: &[f64]) -> Vec<usize> {
        let mut best = vec![f64::INFINITY; levels];
        for (trial, &s) in self.trials.iter().zip(seconds) {
            best[trial.level] = best[trial.level].min(s);
        }
        let mut order: Vec<usize> = (0..levels).collect();
        order.sort_by(|&a, &b| best[a].total_cmp(&best[b]));
        let least = best.iter().copied().fold(f64::INFINITY, f64::min);
        order.retain(|&level| best[level] <= PROMISING * least);
        order
    }
}

impl<'a> TrialWorker<'a> {
    fn new(search: &Search<'a>) -> Self {
        Self {
            interleaver: Interleaver::new(search.problem),
            reserves: search.levels.iter().map(|l| l.reserve.clone()).collect(),
            keys: vec![0.0; search.problem.n],
        }
    }

    /// The makespan of a trial.
    fn run(&mut self, search: &Search<'_>, trial: &Trial) -> Option<f64> {
        let level = &search.levels[trial.level];
        trial.priorities.keys(search.problem, &mut self.keys);
        let settings =
            RunSettings { rules: trial.rules, tail: &level.tail, cutoff_s: f64::INFINITY };
        let reserve = &mut self.reserves[trial.level];
        self.interleaver.run(&level.costs, reserve, &self.keys, settings)
    }
}
