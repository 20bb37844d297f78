//! Tournaments: chains of regular orders compete, and the better half continues.

use dip_core::Budget;
use rand::Rng;
use rayon::prelude::*;

use super::chain::Chain;
use super::periodic::{PeriodicChain, Template};
use super::previous::PreviousPlan;
use super::regular::{Origin, RegularChain};
use super::strategies::upgrade;
use super::{RngStream, Search};
use crate::problem::Solution;

/// Maximum number of chains in a tournament.
const MAX_CHAINS: u64 = 64;
/// Minimum number of chains in a tournament, for large graphs.
const MIN_CHAINS: u64 = 4;
/// Product of the number of chains in a tournament and the number of tasks of the graph.
const CHAIN_TASKS: u64 = 80_000;
/// In the first round, the next order of a chain may be longer than the current one by this share. Each round halves the share.
const SLACK: f64 = 0.003;
/// Maximum number of runs of a chain in the first round.
const FIRST_RUNS: u64 = 50;
/// Maximum ratio between the runs of a chain in one round and in the previous round.
const GROWTH: u64 = 3;
/// Of every four chains in the first tournament, this many start from the plan of the previous batch, unless they are periodic.
const WARM_OF_FOUR: u64 = 3;
/// Of every four chains, the index of the one that sends the lightest microbatch first.
const LIGHTEST_AHEAD: u64 = 2;
/// Of every four chains, the index of the periodic one.
const PERIODIC: u64 = 1;
/// Runs of a chain that restarts an island.
const RESTART_RUNS: u64 = 60;
/// Runs of a chain that count as one iteration.
const RUNS_PER_ITERATION: u64 = 16;

/// Tournaments one after another, until their share of the budget is used.
pub(super) struct Tournaments<'a> {
    /// Levels of memory at which chains start, the best first.
    levels: &'a [usize],
    previous: Option<&'a PreviousPlan>,
    /// The mean microbatch, if memory is limited and it has a periodic order.
    template: Option<Template>,
}

impl<'a> Tournaments<'a> {
    pub(super) fn new(
        search: &Search<'_>,
        levels: &'a [usize],
        previous: Option<&'a PreviousPlan>,
    ) -> Self {
        // Patterns decide how long pairs are held. With memory for all pairs, the other chains find orders as short.
        let first = levels.first().filter(|_| search.problem.is_limited());
        let first = first.map(|&level| &search.levels[level].costs.dur);
        let template = first.and_then(|dur| Template::new(search.problem, dur));
        Self { levels, previous, template }
    }

    /// Returns the best orders of each tournament.
    pub(super) fn run(self, search: &mut Search<'_>) -> Vec<Solution> {
        let mut found = Vec::new();
        if self.levels.is_empty() {
            return found;
        }
        let begun = search.clock.share();
        let until = begun + search.share_of_tournaments() * (1.0 - begun);
        let count = CHAIN_TASKS / search.problem.n.max(1) as u64;
        let count = 1 << count.clamp(MIN_CHAINS, MAX_CHAINS).ilog2();
        let (mut first, mut longest) = (0, 0.0f64);
        // A tournament with less than half of the budget it needs finds less than walks do.
        while !search.is_over() && search.clock.share() + longest / 2.0 < until {
            let begun = search.clock.share();
            let chains = (first..first + count).map(|job| self.entrant(search, job, first == 0));
            let (best, iterations) = compete(search, chains.collect(), until);
            found.extend(best);
            search.clock.count(iterations);
            first += count;
            let took = search.clock.share() - begun;
            // Too few iterations may be left for a single run.
            if took <= 0.0 {
                break;
            }
            longest = longest.max(took);
        }
        found
    }

    /// A chain of a tournament. Half of all chains start at the best level. In the first tournament most continue from the
    /// previous batch.
    fn entrant<'s>(&'s self, search: &'s Search<'_>, job: u64, first: bool) -> Box<dyn Chain + 's> {
        let level = |job: u64| match job.is_multiple_of(2) {
            true => self.levels[0],
            false => self.levels[(job as usize).div_ceil(2) % self.levels.len()],
        };
        if let Some(template) = self.template.as_ref().filter(|_| job % 4 == PERIODIC) {
            let job = job / 4;
            return Box::new(PeriodicChain::new(search, template, level(job), job));
        }
        let level = level(job);
        let origin = match self.previous {
            Some(previous) if first && job % 4 < WARM_OF_FOUR => {
                Origin::Previous(previous.phases())
            }
            _ if job % 4 == LIGHTEST_AHEAD => Origin::LightestAhead,
            _ => Origin::InOrder,
        };
        Box::new(RegularChain::new(search, level, job, origin))
    }
}

/// Lets chains compete. All rounds take equally long; after each, the better half continues. Returns the best order of each
/// remaining chain and the number of iterations.
fn compete(
    search: &Search<'_>,
    mut chains: Vec<Box<dyn Chain + '_>>,
    until: f64,
) -> (Vec<Solution>, u64) {
    let rounds = chains.len().ilog2().max(1);
    let part = (until - search.clock.share()) / f64::from(rounds);
    let mut all_runs = 0;
    for round in 0..rounds {
        let count = chains.len();
        let max_runs = match search.clock.budget() {
            Budget::Time(_) => u64::MAX,
            Budget::Iterations(limit) => {
                (part * limit as f64 * RUNS_PER_ITERATION as f64 / count as f64) as u64
            }
        };
        let runs = max_runs.min(FIRST_RUNS * GROWTH.pow(round));
        let slack = SLACK / f64::from(1u32 << round);
        let slot = part * search.env.threads.clamp(1, count) as f64 / count as f64;
        chains.par_iter_mut().with_max_len(1).for_each(|chain| {
            let until = search.clock.time_share() + slot;
            chain.run(runs, slack, &mut || search.clock.is_past(until));
        });
        all_runs += count as u64 * runs;
        chains.sort_by(|a, b| a.makespan().total_cmp(&b.makespan()));
        if round + 1 < rounds {
            chains.truncate(count / 2);
        }
    }
    let best = chains.into_iter().filter_map(|chain| chain.into_best()).collect();
    (best, all_runs / RUNS_PER_ITERATION)
}

/// The order of a short chain from shuffled microbatches, to restart an island.
pub(super) fn restart(search: &Search<'_>, job: u64) -> Option<Solution> {
    let level = search.rng(RngStream::RestartLevel, job).random_range(0..search.levels.len());
    let mut chain = Box::new(RegularChain::new(search, level, job, Origin::Shuffled));
    chain.run(RESTART_RUNS, 0.0, &mut || search.clock.is_past(1.0));
    let mut order = chain.into_best()?;
    upgrade(search.problem, &mut order, &mut || search.clock.is_past(1.0));
    Some(order)
}
