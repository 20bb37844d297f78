//! The search of [`Dip`](crate::Dip), and the search of the paper.
//!
//! [`Search::run`] reads as the table of contents: one struct per phase, one file per struct. All phases share a [`BudgetClock`] and
//! an [`Incumbent`].
//!
//! A phase works in rounds. The jobs of a round draw from random generators of their own and run on any number of threads. Their
//! results are merged in the order of the jobs, so that an iteration budget gives the same plan on every machine.

mod chain;
mod clock;
mod incumbent;
mod islands;
mod level;
mod periodic;
mod pool;
mod previous;
mod priorities;
mod proof;
mod regular;
mod reorder;
mod robust;
mod rules;
mod strategies;
mod tournament;
mod walk;

pub(crate) use reorder::{DepthFirst, LocalSearch, Mcts, RandomOrder, Reorder};
pub(crate) use robust::Robust;

use std::time::Instant;

use dip_core::{Environment, ScheduleError, TaskGraph};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::ordering::MicrobatchSequences;
use crate::problem::{Problem, Solution};
use clock::BudgetClock;
use incumbent::Incumbent;
use islands::Islands;
use level::Level;
use pool::Pool;
use previous::PreviousPlan;
use reorder::PaperSample;
use rules::PriorityRules;
use strategies::upgrade;
use tournament::Tournaments;

/// Maximum number of tasks of a small graph. In small graphs, single moves find more than local search over regular orders, and
/// walks may exceed memory on their way.
const MAX_SMALL_TASKS: usize = 600;

/// Share of the remaining budget for tournaments.
const SHARE_OF_TOURNAMENTS: f64 = 0.75;
/// The same in small graphs, where walks find more.
const SHARE_OF_TOURNAMENTS_IF_SMALL: f64 = 0.2;

/// A running search: the state that all of its phases share.
pub(crate) struct Search<'a> {
    problem: &'a Problem,
    env: &'a Environment<'a>,
    clock: BudgetClock<'a>,
    incumbent: Incumbent<'a>,
    /// The choices of strategies that fit, from the fastest to the smallest.
    levels: Vec<Level>,
    sequences: MicrobatchSequences,
    /// Orders that are about as long as the best, if there is a judge.
    near: Option<Pool>,
}

/// Rounding of times, relative to the makespan.
const ROUNDING: f64 = 1e-9;
/// With a judge, the rest of the distance from the bound is worth less than robust orders.
const TOLERANCE_OF_JUDGE: f64 = 1e-3;

/// Maximum number of orders that a search with a judge returns.
const MAX_NEAR: usize = 32;

/// The result of a search.
pub(crate) struct Found {
    pub(crate) best: Solution,
    /// Proven lower bound in seconds on the makespan of every plan.
    pub(crate) lower_bound_s: f64,
    /// Other orders that are about as long as the best, if there is a judge.
    pub(crate) near: Vec<Solution>,
}

impl<'a> Search<'a> {
    /// A search that improves `first`, the solution of another schedule. Its budget counts from `start`.
    ///
    /// # Errors
    /// [`ScheduleError::Infeasible`] if not even the smallest strategies fit.
    pub(crate) fn new(
        problem: &'a Problem,
        env: &'a Environment<'a>,
        first: Solution,
        start: Instant,
    ) -> Result<Self, ScheduleError> {
        let levels = Level::all(problem)?;
        let tolerance = if env.judge.is_some() { TOLERANCE_OF_JUDGE } else { ROUNDING };
        let sequences = MicrobatchSequences::new(problem, &levels[0].costs);
        Ok(Self {
            problem,
            env,
            clock: BudgetClock::new(env, start),
            incumbent: Incumbent::new(problem, env.progress, first, tolerance),
            levels,
            sequences,
            near: env.judge.map(|_| Pool::of_size(MAX_NEAR)),
        })
    }

    /// Searches until the budget ends or the best solution is optimal.
    ///
    /// # Errors
    /// [`ScheduleError::NotApplicable`] if the threads cannot be started.
    pub(crate) fn run(mut self, graph: &TaskGraph) -> Result<Found, ScheduleError> {
        threads(self.env)?.install(|| {
            // Warm start: the regular part of the plan of the previous batch (section 4).
            let previous = PreviousPlan::new(&self, graph);
            if let Some(previous) = &previous {
                previous.run(&mut self);
            }
            // Priorities by simple rules, each through dual-queue interleaving (section 2, phases 1 and 2).
            let levels = PriorityRules::new(&self).run(&mut self);
            // The tree search over segment groups (section 2, phase 1), for a small share of the budget.
            PaperSample::new(&self).run(&mut self);
            // Local search over regular orders. This phase and the walks go beyond the paper.
            let mut starts = Tournaments::new(&self, &levels, previous.as_ref()).run(&mut self);
            // Faster strategies wherever memory allows (section 2, phase 3).
            self.upgrade(&mut starts);
            // Tabu walks from the best orders; branch and bound on small graphs.
            Islands::new(&self, &starts).run(&mut self);
            starts.into_iter().for_each(|start| self.keep_near(start));
        });
        let near = self.near.map(Pool::into_members).unwrap_or_default();
        let (best, lower_bound_s) = self.incumbent.into_best();
        Ok(Found { best, lower_bound_s, near })
    }

    /// Runs the paper's search with this reorderer. Returns the best solution and a lower bound in seconds.
    ///
    /// # Errors
    /// [`ScheduleError::NotApplicable`] if the threads cannot be started.
    pub(crate) fn run_paper(
        mut self,
        reorder: &mut dyn Reorder,
    ) -> Result<(Solution, f64), ScheduleError> {
        threads(self.env)?.install(|| reorder::run(&mut self, reorder));
        Ok(self.incumbent.into_best())
    }

    /// Adds the best solution to `starts` and upgrades the strategies of all.
    fn upgrade(&mut self, starts: &mut Vec<Solution>) {
        starts.push(self.incumbent.best().clone());
        for start in starts.iter_mut().take_while(|_| !self.clock.is_past(1.0)) {
            upgrade(self.problem, start, &mut || self.clock.is_past(1.0));
        }
        if let Some(best) = starts.iter().min_by(|a, b| a.makespan.total_cmp(&b.makespan)) {
            self.offer(best.clone());
        }
    }

    /// Keeps a solution for the judge, if there is one.
    fn keep_near(&mut self, solution: Solution) {
        if let Some(near) = &mut self.near {
            near.offer(solution);
        }
    }

    /// Keeps a solution if it is the best so far.
    fn offer(&mut self, solution: Solution) {
        self.incumbent.offer(solution, &self.clock);
    }

    /// True if the budget is used or the best solution is optimal.
    fn is_over(&self) -> bool {
        self.clock.is_over() || self.incumbent.is_optimal()
    }

    /// True if the graph is small.
    fn is_small(&self) -> bool {
        self.problem.n <= MAX_SMALL_TASKS
    }

    /// The share of the remaining budget for tournaments, which earlier phases must not use.
    fn share_of_tournaments(&self) -> f64 {
        if self.is_small() { SHARE_OF_TOURNAMENTS_IF_SMALL } else { SHARE_OF_TOURNAMENTS }
    }

    /// The random generator of one job.
    fn rng(&self, stream: RngStream, job: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.env.seed);
        rng.set_stream(((stream as u64) << 48) + job);
        rng
    }
}

/// The threads of a search.
fn threads(env: &Environment<'_>) -> Result<rayon::ThreadPool, ScheduleError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(env.threads.max(1)).build();
    pool.map_err(|e| ScheduleError::NotApplicable {
        schedule: "dip".into(),
        reason: format!("its threads could not be started: {e}"),
    })
}

/// A stream of random generators. Each kind of job has a stream of its own.
#[derive(Debug, Clone, Copy)]
enum RngStream {
    /// Walks of the islands.
    Walk = 1,
    /// Local search over regular orders.
    RegularChain = 2,
    /// Proposals of a reorderer.
    Reorder = 3,
    /// Local search from shuffled microbatches.
    Restart = 4,
    /// The level of such a restart.
    RestartLevel = 5,
    /// Local search over patterns.
    PeriodicChain = 6,
}
