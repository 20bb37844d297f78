//! Orders to start from: every ordering rule under every kind of queue, and regular orders improved by local search.

use dip_core::Budget;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::level::Level;
use super::priorities::Priorities;
use super::regular::{Chain, Origin};
use super::{SMALL, Search};
use crate::ordering::Reserve;
use crate::ordering::{Interleaver, Lanes, Rules};
use crate::problem::Solution;
use crate::search::strategies::upgrade;

/// Chains of regular orders that begin.
const CHAINS: u64 = 64;
/// The least of them, in large graphs.
const FEW: u64 = 4;
/// Chains are so many tasks in all.
const RUNS_OF_TASKS: u64 = 80_000;
/// The part that chains take of what is left of a budget when they begin.
const SHARE: f64 = 0.75;
/// The same for small graphs, where walks find more.
const SHARE_OF_SMALL: f64 = 0.2;
/// How much longer the next order of a chain may be in the first round; half of that in the next.
const SLACK: f64 = 0.003;
/// How much longer the best order of a level may be than that of another, so that chains begin at it.
const FAR: f64 = 1.1;
/// Most runs of a chain in the first round.
const FIRST_RUNS: u64 = 50;
/// So many times as many runs has a chain in every other round as in the one before.
const MORE_RUNS: u64 = 3;
/// Of four chains of the first tournament so many start from the plan of the batch before, where there is one.
const WARM: u64 = 3;
/// Of four chains the one that starts with the lightest microbatch ahead.
const AHEAD: u64 = 2;
/// Runs of a chain that begins an island anew.
const FRESH: u64 = 60;
/// Runs of a chain that count as one iteration.
const RUNS: u64 = 16;

/// What is run through the interleaving.
struct Candidate {
    priorities: Priorities,
    rules: Rules,
    level: usize,
}

impl Search<'_> {
    /// The regular part of the plan of the batch before, at every level of memory.
    pub(in crate::search) fn orders_of_previous(&mut self) {
        let Some(phases) = &self.previous else { return };
        let problem = self.problem;
        let (mut interleaver, mut keys) = (Interleaver::new(problem), vec![0.0; problem.n]);
        phases.keys(problem, &mut keys);
        let mut found: Option<Solution> = None;
        for level in &self.levels {
            if self.out_of_time(0.5 * self.share_of_chains()) {
                break;
            }
            // Memory is kept for the order of the turns.
            let Some(mut level) = level.turned(problem, (&self.turns, phases.turns())) else {
                continue;
            };
            let cutoff = found.as_ref().map_or(f64::INFINITY, |f| f.makespan);
            let settings = (&phases.rules, &level.tail[..], cutoff);
            let run = interleaver.run(&level.costs, &mut level.reserve, &keys, settings);
            if let Some(makespan) = run {
                let order = interleaver.order();
                found = Some(Solution { order, choice: level.choice, makespan });
            }
        }
        self.keep(found);
    }

    /// Every ordering rule under every kind of queue, at every level of memory. Returns the levels that come near the best, best
    /// first.
    pub(in crate::search) fn rules(&mut self) -> Vec<usize> {
        let lanes = [Lanes::Alternate, Lanes::BackwardFirst, Lanes::Single, Lanes::ForwardFirst];
        // Levels go innermost: where time is short, each has been tried under the rules that come first.
        let starts = |level: &Level| Priorities::starts(self.problem, &level.tail);
        let starts: Vec<Vec<Priorities>> = self.levels.iter().map(starts).collect();
        let mut candidates = Vec::new();
        for patience in [0.0, 0.5] {
            for lanes in lanes {
                let rules = Rules { lanes, patience, ..Rules::default() };
                for start in 0..starts[0].len() {
                    for (level, starts) in starts.iter().enumerate() {
                        let priorities = starts[start].clone();
                        candidates.push(Candidate { priorities, rules, level });
                    }
                }
            }
        }
        let this = &*self;
        let (problem, levels) = (self.problem, &self.levels);
        let machine = || {
            let reserves: Vec<Reserve> = levels.iter().map(|l| l.reserve.clone()).collect();
            (Interleaver::new(problem), reserves, vec![0.0; problem.n])
        };
        let run = |machine: &mut (Interleaver<'_>, Vec<Reserve>, Vec<f64>), c: &Candidate| {
            let (interleaver, reserves, keys) = machine;
            let level = &levels[c.level];
            c.priorities.keys(problem, keys);
            let settings = (&c.rules, &*level.tail, f64::INFINITY);
            interleaver.run(&level.costs, &mut reserves[c.level], keys, settings)
        };
        // One is run however little time there is: what is realised before may be many times as long.
        let rated = |machine: &mut _, (i, c): (usize, &Candidate)| {
            let late = i > 0 && this.out_of_time(0.5 * this.share_of_chains());
            let makespan = if late { None } else { run(machine, c) };
            makespan.unwrap_or(f64::INFINITY)
        };
        let seconds: Vec<f64> =
            candidates.par_iter().enumerate().map_init(machine, rated).collect();
        let mut best = vec![f64::INFINITY; levels.len()];
        for (c, &s) in candidates.iter().zip(&seconds) {
            best[c.level] = best[c.level].min(s);
        }
        let first = (0..seconds.len()).min_by(|&a, &b| seconds[a].total_cmp(&seconds[b]));
        let mut found = None;
        if let Some(at) = first.filter(|&at| seconds[at] < self.best.makespan) {
            let mut again = machine();
            run(&mut again, &candidates[at]);
            let choice = levels[candidates[at].level].choice.clone();
            found = Some(Solution { order: again.0.order(), choice, makespan: seconds[at] });
        }
        let mut order: Vec<usize> = (0..levels.len()).collect();
        order.sort_by(|&a, &b| best[a].total_cmp(&best[b]));
        let least = best.iter().copied().fold(f64::INFINITY, f64::min);
        order.retain(|&level| best[level] <= FAR * least);
        self.iteration += candidates.len() as u64;
        self.keep(found);
        order
    }

    /// Tournaments of chains, one after the other, until their share of the budget is used. The best orders of each.
    pub(in crate::search) fn chains(&mut self, order: &[usize]) -> Vec<Solution> {
        let mut found = Vec::new();
        if order.is_empty() {
            return found;
        }
        let until = self.used() + self.share_of_chains() * (1.0 - self.used());
        let count = (RUNS_OF_TASKS / self.problem.n.max(1) as u64).clamp(FEW, CHAINS);
        let count = 1 << count.ilog2();
        let (mut first, mut longest) = (0, 0.0f64);
        // One that has not half of the time it needs finds less than walks do.
        while !self.ended() && self.used() + longest / 2.0 < until {
            let begun = self.used();
            let jobs = first..first + count;
            let chains = jobs.map(|job| self.entrant(order, job, first == 0)).collect();
            let (best, iterations) = self.compete(chains, until);
            found.extend(best);
            self.iteration += iterations;
            first += count;
            // Too few iterations may be left for a single one of a tournament.
            let took = self.used() - begun;
            if took <= 0.0 {
                break;
            }
            longest = longest.max(took);
        }
        found
    }

    /// A chain of a tournament. Half of them go to the best level; in the first tournament most go on from the batch before.
    fn entrant(&self, order: &[usize], job: u64, first: bool) -> Chain<'_> {
        let level = match job.is_multiple_of(2) {
            true => order[0],
            false => order[(job as usize).div_ceil(2) % order.len()],
        };
        let origin = match &self.previous {
            Some(phases) if first && job % 4 < WARM => Origin::Previous(phases),
            _ if job % 4 == AHEAD => Origin::LightestAhead,
            _ => Origin::Regular,
        };
        Chain::new(self, level, job, origin)
    }

    /// Lets chains compete: after every round, which all take as long, the better half goes on. The best of each that is left,
    /// and the iterations made.
    fn compete(&self, mut chains: Vec<Chain<'_>>, until: f64) -> (Vec<Solution>, u64) {
        let rounds = chains.len().ilog2().max(1);
        let part = (until - self.used()) / f64::from(rounds);
        let mut made = 0;
        for round in 0..rounds {
            let count = chains.len();
            let most = match self.env.budget {
                Budget::Time(_) => u64::MAX,
                Budget::Iterations(limit) => {
                    (part * limit as f64 * RUNS as f64 / count as f64) as u64
                }
            };
            let runs = most.min(FIRST_RUNS * MORE_RUNS.pow(round));
            let slack = SLACK / f64::from(1u32 << round);
            let slot = part * self.env.threads.clamp(1, count) as f64 / count as f64;
            chains.par_iter_mut().with_max_len(1).for_each(|chain| {
                let until = self.spent() + slot;
                chain.run(runs, slack, || self.out_of_time(until));
            });
            made += count as u64 * runs;
            chains.sort_by(|a, b| a.makespan().total_cmp(&b.makespan()));
            if round + 1 < rounds {
                chains.truncate(count / 2);
            }
        }
        (chains.into_iter().filter_map(Chain::best).collect(), made / RUNS)
    }

    fn share_of_chains(&self) -> f64 {
        if self.problem.n <= SMALL { SHARE_OF_SMALL } else { SHARE }
    }

    /// A chain that starts anywhere, with microbatches in any order, to begin an island anew.
    pub(in crate::search) fn fresh(&self, job: u64) -> Option<Solution> {
        let level = self.rng(5, job).random_range(0..self.levels.len());
        let mut chain = Chain::new(self, level, job, Origin::Anywhere);
        chain.run(FRESH, 0.0, || self.out_of_time(1.0));
        let mut fresh = chain.best()?;
        upgrade(self.problem, &mut fresh);
        Some(fresh)
    }

    /// A generator for one job of one phase.
    pub(in crate::search) fn rng(&self, phase: u64, job: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.env.seed);
        rng.set_stream((phase << 48) + job);
        rng
    }
}
