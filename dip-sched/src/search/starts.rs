//! Orders to start from: every ordering rule under every kind of queue, and regular orders improved by local search.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::Search;
use super::level::Level;
use super::phases::Phases;
use super::priorities::Priorities;
use super::upgrade::upgrade;
use crate::finish::Solution;
use crate::interleave::{Interleaver, Lanes, Rules};
use crate::reserve::Reserve;

/// Chains of regular orders, and the part of a budget in time that they may take.
const CHAINS: (u64, f64) = (8, 0.4);
/// The same for large graphs, where single moves get nowhere in time.
const CHAINS_OF_LARGE: (u64, f64) = (2, 0.8);
/// Tasks above which a graph is large.
const LARGE: usize = 10_000;
/// Tasks below which tabu walks do most of the work.
const SMALL: usize = 1000;
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
    /// Every ordering rule under every kind of queue, at every level of memory. Returns the levels, best first.
    pub(super) fn rules(&mut self) -> Vec<usize> {
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
        let seconds: Vec<f64> = candidates
            .par_iter()
            .map_init(machine, |m, c| {
                let makespan =
                    if this.out_of_time(0.5 * this.plan_of_chains().1) { None } else { run(m, c) };
                makespan.unwrap_or(f64::INFINITY)
            })
            .collect();
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
        self.iteration += candidates.len() as u64;
        self.keep(found);
        order
    }

    /// Chains of regular orders at the best levels, each improved by itself; the best of each.
    pub(super) fn chains(&mut self, order: &[usize]) -> Vec<Solution> {
        let Some(&first) = order.first().filter(|_| !self.ended()) else { return Vec::new() };
        let (chains, share) = self.plan_of_chains();
        let runs = if self.problem.n < SMALL { 200 } else { 400 };
        let runs = self.iterations_left().map_or(runs, |left| runs.min(left * RUNS / (3 * chains)));
        let this = &*self;
        // Half of the chains go to the best level.
        let chain = |job: u64| {
            let level = if job.is_multiple_of(2) {
                first
            } else {
                order[(job as usize).div_ceil(2) % order.len()]
            };
            this.chain(level, job, runs, share, false)
        };
        let found: Vec<_> = (0..chains).into_par_iter().map(chain).collect();
        self.iteration += chains * runs / RUNS;
        found.into_iter().flatten().collect()
    }

    fn plan_of_chains(&self) -> (u64, f64) {
        if self.problem.n > LARGE { CHAINS_OF_LARGE } else { CHAINS }
    }

    /// A chain that starts anywhere, with microbatches in any order, to begin an island anew.
    pub(super) fn fresh(&self, job: u64) -> Option<Solution> {
        let level = self.rng(5, job).random_range(0..self.levels.len());
        let mut fresh = self.chain(level, job, FRESH, 1.0, true)?;
        upgrade(self.problem, &mut fresh);
        Some(fresh)
    }

    /// Improves a regular order by so many runs, within a part of a budget in time.
    fn chain(
        &self,
        level: usize,
        job: u64,
        runs: u64,
        share: f64,
        shuffled: bool,
    ) -> Option<Solution> {
        let problem = self.problem;
        let mut rng = self.rng(if shuffled { 4 } else { 2 }, job);
        let mut interleaver = Interleaver::new(problem);
        let mut keys = vec![0.0; problem.n];
        let head = problem.heads(&self.levels[level].costs.dur);
        let mut current = Phases::new(problem, &head, rng.random_range(0.5..12.0));
        if shuffled {
            current.shuffle(&mut rng);
        }
        // A level for each chunk of each rank.
        let mut units = vec![level; problem.ranks * problem.chunks];
        let mut kept = self.levels[level].clone();
        let mut best: Option<Solution> = None;
        for run in 0..runs {
            if self.out_of_time(share) {
                break;
            }
            let mut next = current.clone();
            let mut other: Option<(Vec<usize>, Level)> = None;
            if run > 0 {
                next.perturb(&mut rng);
                // Ranks differ in how much they hold: each may have a level of its own.
                if self.levels.len() > 1 && rng.random_bool(0.3) {
                    let units = self.other_units(&units, &mut rng);
                    let Some(level) = self.mix(&units) else { continue };
                    other = Some((units, level));
                }
            }
            next.keys(problem, &mut keys);
            let cutoff = best.as_ref().map_or(f64::INFINITY, |b| b.makespan);
            let Level { costs, tail, reserve, choice } = match &mut other {
                Some((_, level)) => level,
                None => &mut kept,
            };
            let settings = (&next.rules, &tail[..], cutoff);
            let Some(makespan) = interleaver.run(costs, reserve, &keys, settings) else { continue };
            let order = interleaver.order();
            best = Some(Solution { order, choice: choice.clone(), makespan });
            current = next;
            if let Some((other, level)) = other {
                (units, kept) = (other, level);
            }
        }
        best
    }

    /// Another level for a rank, for a chunk, or for a chunk of a rank.
    fn other_units(&self, units: &[usize], rng: &mut ChaCha8Rng) -> Vec<usize> {
        let (ranks, chunks) = (self.problem.ranks, self.problem.chunks);
        let (rank, chunk) = (rng.random_range(0..ranks), rng.random_range(0..chunks));
        let level = rng.random_range(0..self.levels.len());
        let part = rng.random_range(0..4);
        let mut units = units.to_vec();
        for (i, unit) in units.iter_mut().enumerate() {
            let (own_rank, own_chunk) = (i / chunks == rank, i % chunks == chunk);
            let chosen = match part {
                0 => own_rank && own_chunk,
                1 => own_chunk,
                _ => own_rank,
            };
            if chosen {
                *unit = level;
            }
        }
        units
    }

    /// The strategies of a level for each chunk of each rank.
    fn mix(&self, units: &[usize]) -> Option<Level> {
        let problem = self.problem;
        let choice = problem.pairs.iter().enumerate().map(|(p, pair)| {
            let forward = pair.forward.index();
            let unit =
                problem.rank[forward] as usize * problem.chunks + problem.chunk[forward] as usize;
            self.levels[units[unit]].choice[p]
        });
        Level::new(problem, choice.collect())
    }

    /// A generator for one job of one phase.
    pub(super) fn rng(&self, phase: u64, job: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.env.seed);
        rng.set_stream((phase << 48) + job);
        rng
    }
}
