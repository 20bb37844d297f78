//! The search behind [`Dip`](crate::Dip), in phases: orders to start from (`starts`), then tabu walks from islands of good
//! orders (`walker`), with a share for branch and bound where the graph is small. And the search of the paper, with any
//! reorderer (`paper`).
//!
//! A search goes in rounds. The jobs of a round draw from generators of their own, run on any number of threads and are merged
//! in the order of their numbers, so that an iteration budget gives the same plan on every machine.

mod level;
mod pool;
mod previous;
mod priorities;
mod regular;
mod reorder;
mod starts;
mod strategies;
mod walk;

pub(crate) use reorder::{DepthFirst, Local, Mcts, Random, Reorder};

use std::time::Instant;

use dip_core::{Budget, Environment, ScheduleError, Seconds, TaskGraph};
use rand::Rng;
use rayon::prelude::*;

use crate::ordering::Branch;
use crate::ordering::Turns;
use crate::problem::Problem;
use crate::problem::Solution;
use crate::problem::evaluate;
use level::Level;
use pool::Pool;
use regular::Phases;
use strategies::upgrade;
use walk::{Found, Walker};

/// Islands, and walks of one round.
const ISLANDS: u64 = 4;
/// How much longer than the best an order may be to start an island, as a part of it.
const NEAR: f64 = 0.003;
/// Rounds without a better order after which an island begins anew.
const MOST_STALE: u32 = 12;
/// Tasks up to which a graph is small: single moves find more there than chains do, and may exceed memory on their way.
const SMALL: usize = 600;
/// Tasks up to which branch and bound takes part.
const MOST_BRANCHED: usize = 80;
/// Nodes of branch and bound for each iteration of a budget.
const NODES: u64 = 100;

/// A running search.
pub(crate) struct Search<'a> {
    problem: &'a Problem,
    env: &'a Environment<'a>,
    start: Instant,
    iteration: u64,
    levels: Vec<Level>,
    /// Sequences for any turns of the microbatches.
    turns: Turns,
    bound: f64,
    best: Solution,
    /// The regular part of the plan of the batch before.
    previous: Option<Phases>,
    /// Whether branch and bound has shown that nothing is better.
    proven: bool,
}

impl<'a> Search<'a> {
    /// A search that starts from `first`, a solution of some other schedule, and whose time runs since `start`.
    ///
    /// # Errors
    /// [`ScheduleError::Infeasible`] where not even the smallest strategies fit.
    pub(crate) fn new(
        problem: &'a Problem,
        env: &'a Environment<'a>,
        (first, start): (Solution, Instant),
    ) -> Result<Self, ScheduleError> {
        let levels = Level::all(problem)?;
        let turns = Turns::new(problem, &levels[0].costs);
        let bound = crate::bounds::lower_bound_of(problem);
        let (previous, proven) = (None, false);
        Ok(Self {
            problem,
            env,
            start,
            iteration: 0,
            levels,
            turns,
            bound,
            best: first,
            previous,
            proven,
        })
    }

    /// Lets chains go on from the plan of the batch before, where the environment has one. `graph` is that of the problem.
    pub(crate) fn after_previous(mut self, graph: &TaskGraph) -> Self {
        let previous = self.env.previous;
        self.previous = previous.and_then(|plan| previous::regular_part(plan, graph, self.problem));
        self
    }

    /// The proven lower bound.
    pub(crate) fn bound(&self) -> f64 {
        self.bound
    }

    /// Runs until the budget ends or nothing can be better.
    ///
    /// # Errors
    /// [`ScheduleError::NotApplicable`] where the threads cannot be started.
    pub(crate) fn run(mut self) -> Result<Solution, ScheduleError> {
        self.threads()?.install(|| {
            self.orders_of_previous();
            let levels = self.rules();
            self.sample_paper();
            let mut starts = self.chains(&levels);
            starts.push(self.best.clone());
            for start in starts.iter_mut().take_while(|_| !self.out_of_time(1.0)) {
                upgrade(self.problem, start);
            }
            let best = starts.iter().min_by(|a, b| a.makespan.total_cmp(&b.makespan)).cloned();
            self.keep(best);
            self.walks(&starts);
        });
        Ok(self.best)
    }

    fn threads(&self) -> Result<rayon::ThreadPool, ScheduleError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.env.threads.max(1)).build();
        pool.map_err(|e| ScheduleError::NotApplicable {
            schedule: "dip".into(),
            reason: format!("its threads could not be started: {e}"),
        })
    }

    /// Rounds of tabu walks from islands of good orders.
    fn walks(&mut self, starts: &[Solution]) {
        let mut islands: Vec<Pool> = (0..ISLANDS).map(|_| Pool::default()).collect();
        let near = |s: &&Solution| s.makespan <= self.best.makespan * (1.0 + NEAR);
        for (i, start) in starts.iter().filter(near).enumerate() {
            islands[i % ISLANDS as usize].offer(start.clone());
        }
        for pool in &mut islands {
            pool.offer(self.best.clone());
        }
        let mut stale = vec![0u32; islands.len()];
        let mut round = 0u64;
        while !self.ended() {
            let (this, now, idle) = (&*self, &islands, &stale);
            let run = |walker: &mut Walker<'a>, job: u64| {
                let number = round * ISLANDS + job;
                let mut rng = this.rng(1, number);
                if idle[job as usize] > MOST_STALE
                    && let Some(fresh) = this.fresh(number)
                {
                    return walker.polish(&fresh, &mut rng, || this.out_of_time(1.0));
                }
                let away = u64::from(rng.random_range(0..24) == 0);
                let members = now[((job + away) % ISLANDS) as usize].members();
                if round == 0 {
                    return walker.polish(&members[0], &mut rng, || this.out_of_time(1.0));
                }
                let from = &members[rng.random_range(0..members.len())];
                walker.explore(from, &mut rng, || this.out_of_time(1.0))
            };
            let walker = || Walker::new(this.problem);
            let found: Vec<_> = (0..ISLANDS).into_par_iter().map_init(walker, run).collect();
            for ((found, pool), stale) in found.into_iter().zip(&mut islands).zip(&mut stale) {
                let Some(Found { best, iterations }) = found else { continue };
                self.iteration += iterations;
                self.keep(Some(best.clone()));
                if *stale > MOST_STALE {
                    pool.clear();
                }
                *stale = if pool.offer(best) { 0 } else { *stale + 1 };
            }
            // The first island always goes on from the best.
            if stale[0] > MOST_STALE {
                stale[0] = 0;
                islands[0].offer(self.best.clone());
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
        let this = &*self;
        let share = match self.env.budget {
            Budget::Time(limit) => {
                let spent = self.start.elapsed().as_secs_f64() / limit.0;
                spent + (1.0 - spent) / 4.0
            }
            Budget::Iterations(_) => 1.0,
        };
        let spent = |so_far: u64| so_far >= nodes || this.out_of_time(share);
        let outcome = Branch::new(this.problem, this.best.clone(), spent).run();
        self.proven = outcome.proven;
        self.keep(Some(outcome.best));
    }

    /// Keeps a solution where it is the best so far.
    fn keep(&mut self, found: Option<Solution>) {
        let Some(found) = found.filter(|f| f.makespan < self.best.makespan) else { return };
        debug_assert!(evaluate::fits(
            self.problem,
            &self.problem.costs(&found.choice),
            &found.order
        ));
        self.best = found;
        if let Some(progress) = self.env.progress {
            let elapsed = Seconds(self.start.elapsed().as_secs_f64());
            progress.improved(elapsed, self.iteration, Seconds(self.best.makespan));
        }
    }

    /// Whether a part of a budget in time is spent, or the caller asked to stop. An iteration budget is only looked at between
    /// rounds: it must not depend on the clock.
    fn out_of_time(&self, share: f64) -> bool {
        self.spent() >= share || self.env.cancelled()
    }

    /// The part of a budget in time that is spent.
    fn spent(&self) -> f64 {
        match self.env.budget {
            Budget::Time(limit) => self.start.elapsed().as_secs_f64() / limit.0,
            Budget::Iterations(_) => 0.0,
        }
    }

    /// The part of a budget of either kind that is used.
    fn used(&self) -> f64 {
        match self.env.budget {
            Budget::Time(_) => self.spent(),
            Budget::Iterations(limit) => self.iteration as f64 / limit.max(1) as f64,
        }
    }

    /// Iterations that are left of an iteration budget.
    fn iterations_left(&self) -> Option<u64> {
        match self.env.budget {
            Budget::Time(_) => None,
            Budget::Iterations(limit) => Some(limit.saturating_sub(self.iteration)),
        }
    }

    fn ended(&self) -> bool {
        self.out_of_time(1.0)
            || self.iterations_left() == Some(0)
            || self.proven
            || self.best.makespan <= self.bound * (1.0 + 1e-9)
    }
}
