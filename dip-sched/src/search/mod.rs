//! The search behind [`Dip`](crate::Dip): priorities are proposed, run through dual-queue interleaving, and the best order stays
//! (paper section 2, phases 1 and 2); then faster memory strategies are taken wherever they fit (phase 3).
//!
//! A search goes in rounds. The candidates of a round are drawn from a generator seeded by the round, evaluated on any number of
//! threads and merged in the order in which they were drawn, so that an iteration budget gives the same plan on every machine.

mod moves;
mod pool;
mod priorities;
mod rebuild;
mod selection;
mod tabu;
mod upgrade;
mod walker;

use std::time::Instant;

use dip_core::{Budget, Environment, ScheduleError, Seconds};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::branch::Branch;
use crate::evaluate;
use crate::finish::Solution;
use crate::interleave::{Interleaver, Lanes, Rules};
use crate::problem::{Choice, Costs, Problem};
use crate::realise::levels;
use crate::reserve::Reserve;
use crate::sequence::feasible_sequence;
use pool::Pool;
use priorities::Priorities;
use walker::{Found, Walker};

/// Candidates of one round.
const ROUND: usize = 16;
/// Rounds without a better plan after which the search starts again from the best.
const PATIENCE: u32 = 12;

/// Walks of one round.
const WALKS: u64 = 4;

/// Tasks up to which branch and bound takes part.
const MOST_BRANCHED: usize = 200;
/// Nodes of branch and bound for each iteration of a budget.
const NODES: u64 = 100;

/// One choice of memory strategies, with what is derived from it.
struct Level {
    choice: Choice,
    costs: Costs,
    tail: Vec<f64>,
    reserve: Reserve,
}

/// What is run through the interleaving.
#[derive(Clone)]
struct Candidate {
    priorities: Priorities,
    rules: Rules,
    level: usize,
}

/// A running search.
pub(crate) struct Search<'a> {
    problem: &'a Problem,
    env: &'a Environment<'a>,
    start: Instant,
    iteration: u64,
    levels: Vec<Level>,
    bound: f64,
    best: Solution,
    /// Whether branch and bound has shown that nothing is better.
    proven: bool,
}

impl<'a> Search<'a> {
    /// A search that starts from `first`, a solution of some other schedule.
    ///
    /// # Errors
    /// [`ScheduleError::Infeasible`] where not even the smallest strategies fit.
    pub(crate) fn new(
        problem: &'a Problem,
        env: &'a Environment<'a>,
        first: Solution,
    ) -> Result<Self, ScheduleError> {
        let mut infeasible = None;
        let mut all = Vec::new();
        for choice in levels(problem) {
            let costs = problem.costs(&choice);
            match feasible_sequence(problem, &costs) {
                Ok(witness) => {
                    let reserve = Reserve::new(problem, &costs, &witness);
                    let tail = problem.tails(&costs.dur);
                    all.push(Level { choice, costs, tail, reserve });
                }
                Err(error) => infeasible = Some(error),
            }
        }
        if let (true, Some(error)) = (all.is_empty(), infeasible) {
            return Err(error);
        }
        let bound = crate::bounds::lower_bound_of(problem);
        let start = Instant::now();
        Ok(Self {
            problem,
            env,
            start,
            iteration: 0,
            levels: all,
            bound,
            best: first,
            proven: false,
        })
    }

    /// Runs until the budget ends or the bound is met.
    ///
    /// # Errors
    /// [`ScheduleError::NotApplicable`] where the threads cannot be started.
    pub(crate) fn run(mut self) -> Result<Solution, ScheduleError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.env.threads.max(1)).build();
        let pool = pool.map_err(|e| ScheduleError::NotApplicable {
            schedule: "dip".into(),
            reason: format!("its threads could not be started: {e}"),
        })?;
        pool.install(|| {
            self.rounds();
            upgrade::upgrade(self.problem, &mut self.best);
            self.walks();
        });
        Ok(self.best)
    }

    fn rounds(&mut self) {
        let starts = self.starts();
        let mut scored = self.evaluate(&starts);
        let polish_after = self.iteration + 64;
        scored.sort_by(|a, b| a.0.total_cmp(&b.0));
        let Some(&(mut current_s, at)) = scored.first() else { return };
        let mut current = starts[at].clone();
        let mut incumbent = current.clone();
        let (mut round, mut idle) = (0u64, 0);
        while !self.ended() && self.iteration < polish_after {
            let mut rng = ChaCha8Rng::seed_from_u64(self.env.seed);
            rng.set_stream(round + 1);
            let moves: Vec<Candidate> = (0..ROUND)
                .map(|_| {
                    let mut next = current.clone();
                    next.priorities.perturb(&mut rng);
                    next
                })
                .collect();
            let before = self.best.makespan;
            let scored = self.evaluate(&moves);
            let best = scored.iter().min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            if let Some(&(seconds, at)) = best
                && seconds <= current_s
            {
                (current, current_s) = (moves[at].clone(), seconds);
            }
            if self.best.makespan < before {
                (incumbent, idle) = (current.clone(), 0);
            } else {
                idle += 1;
            }
            if idle > PATIENCE {
                // Another start, or the best so far, with other rules.
                let fresh = (round / u64::from(PATIENCE)) as usize % (starts.len() + 1);
                current = starts.get(fresh).unwrap_or(&incumbent).clone();
                (current_s, idle) = (f64::INFINITY, 0);
            }
            round += 1;
        }
    }

    /// Rounds of tabu walks from the elite pool.
    fn walks(&mut self) {
        let mut islands: Vec<Pool> = (0..WALKS).map(|_| Pool::default()).collect();
        islands.iter_mut().for_each(|pool| pool.offer(self.best.clone()));
        let mut round = 0u64;
        while !self.ended() {
            let (problem, env, start) = (self.problem, self.env, self.start);
            let islands_now = &islands;
            let run = |walker: &mut Walker<'a>, job: u64| {
                let mut rng = ChaCha8Rng::seed_from_u64(env.seed);
                rng.set_stream((1 << 32) + round * WALKS + job);
                let ended = || {
                    let spent = match env.budget {
                        Budget::Time(limit) => start.elapsed().as_secs_f64() >= limit.0,
                        Budget::Iterations(_) => false,
                    };
                    spent || env.cancelled()
                };
                let away = u64::from(rng.random_range(0..8) == 0);
                let members = islands_now[((job + away) % WALKS) as usize].members();
                if round == 0 && job == 0 {
                    return walker.polish(&members[0], &mut rng, ended);
                }
                let from = &members[rng.random_range(0..members.len())];
                walker.explore(from, &mut rng, ended)
            };
            let walker = || Walker::new(problem);
            let found: Vec<_> = (0..WALKS).into_par_iter().map_init(walker, run).collect();
            for (found, pool) in found.into_iter().zip(&mut islands) {
                let Some(Found { best, iterations }) = found else { continue };
                self.iteration += iterations;
                if best.makespan < self.best.makespan {
                    self.best = best.clone();
                    self.report(self.iteration);
                }
                pool.offer(best);
            }
            round += 1;
            if round == 2 && self.problem.n <= MOST_BRANCHED {
                self.branch();
                islands[0].offer(self.best.clone());
            }
        }
    }

    /// Spends a part of the budget on branch and bound, which may prove the best so far, or improve it.
    fn branch(&mut self) {
        let nodes = match self.env.budget {
            Budget::Time(_) => u64::MAX,
            Budget::Iterations(limit) => (limit / 4).saturating_mul(NODES),
        };
        let (start, env) = (Instant::now(), self.env);
        let seconds = match env.budget {
            Budget::Time(limit) => (limit.0 - self.start.elapsed().as_secs_f64()) / 4.0,
            Budget::Iterations(_) => f64::INFINITY,
        };
        let spent = |so_far: u64| {
            so_far >= nodes || start.elapsed().as_secs_f64() >= seconds || env.cancelled()
        };
        let outcome = Branch::new(self.problem, self.best.clone(), spent).run();
        if outcome.best.makespan < self.best.makespan {
            self.best = outcome.best;
            self.report(self.iteration);
        }
        self.proven = outcome.proven;
    }

    /// Every ordering rule under every kind of queue, at every level of memory.
    fn starts(&self) -> Vec<Candidate> {
        let lanes = [Lanes::Alternate, Lanes::BackwardFirst, Lanes::Single, Lanes::ForwardFirst];
        let mut starts = Vec::new();
        for level in 0..self.levels.len() {
            for priorities in Priorities::starts(self.problem, &self.levels[level].tail) {
                for lanes in lanes {
                    for patience in [0.0, 0.5] {
                        let rules = Rules { lanes, patience, ..Rules::default() };
                        starts.push(Candidate { priorities: priorities.clone(), rules, level });
                    }
                }
            }
        }
        starts
    }

    /// Seconds of every candidate (infinite where it is not below the best), with its index; keeps the best order.
    fn evaluate(&mut self, candidates: &[Candidate]) -> Vec<(f64, usize)> {
        let cutoff = f64::INFINITY;
        let (problem, levels) = (self.problem, &self.levels);
        let run = |machine: &mut (Interleaver<'_>, Vec<Reserve>, Vec<f64>), c: &Candidate| {
            let (interleaver, reserves, keys) = machine;
            let level = &levels[c.level];
            c.priorities.keys(problem, keys);
            let rules = (&c.rules, &*level.tail, cutoff);
            interleaver
                .run(&level.costs, &mut reserves[c.level], keys, rules)
                .unwrap_or(f64::INFINITY)
        };
        let machine = || {
            let reserves = levels.iter().map(|l| l.reserve.clone()).collect();
            (Interleaver::new(problem), reserves, vec![0.0; problem.n])
        };
        let seconds: Vec<f64> = candidates.par_iter().map_init(machine, run).collect();
        let scored: Vec<(f64, usize)> = seconds.into_iter().zip(0..).collect();
        let best = scored.iter().min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        if let Some(&(seconds, at)) = best
            && seconds < self.best.makespan
        {
            let mut again = machine();
            run(&mut again, &candidates[at]);
            self.keep(again.0.order(), candidates[at].level, self.iteration + at as u64);
        }
        self.iteration += candidates.len() as u64;
        scored
    }

    fn keep(&mut self, order: Vec<Vec<u32>>, level: usize, iteration: u64) {
        let level = &self.levels[level];
        let makespan = evaluate::makespan(self.problem, &level.costs.dur, &order);
        let Some(makespan) = makespan.filter(|&m| m < self.best.makespan) else { return };
        debug_assert!(evaluate::fits(self.problem, &level.costs, &order));
        self.best = Solution { order, choice: level.choice.clone(), makespan };
        self.report(iteration);
    }

    fn report(&self, iteration: u64) {
        if let Some(progress) = self.env.progress {
            let elapsed = Seconds(self.start.elapsed().as_secs_f64());
            progress.improved(elapsed, iteration, Seconds(self.best.makespan));
        }
    }

    fn ended(&self) -> bool {
        let spent = match self.env.budget {
            Budget::Time(limit) => self.start.elapsed().as_secs_f64() >= limit.0,
            Budget::Iterations(limit) => self.iteration >= limit,
        };
        spent
            || self.proven
            || self.env.cancelled()
            || self.best.makespan <= self.bound * (1.0 + 1e-9)
    }
}
