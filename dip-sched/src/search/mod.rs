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
mod rules;
mod strategies;
mod tournament;
mod walk;

pub(crate) use reorder::{DepthFirst, LocalSearch, Mcts, RandomOrder, Reorder};

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
        let sequences = MicrobatchSequences::new(problem, &levels[0].costs);
        Ok(Self {
            problem,
            env,
            clock: BudgetClock::new(env, start),
            incumbent: Incumbent::new(problem, env.progress, first),
            levels,
            sequences,
        })
    }

    /// Searches until the budget ends or the best solution is optimal. Returns that solution and a lower bound in seconds.
    ///
    /// # Errors
    /// [`ScheduleError::NotApplicable`] if the threads cannot be started.
    pub(crate) fn run(mut self, graph: &TaskGraph) -> Result<(Solution, f64), ScheduleError> {
        self.threads()?.install(|| {
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
        });
        Ok(self.incumbent.into_best())
    }

    /// Runs the paper's search with this reorderer. Returns the best solution and a lower bound in seconds.
    ///
    /// # Errors
    /// [`ScheduleError::NotApplicable`] if the threads cannot be started.
    pub(crate) fn run_paper(
        mut self,
        reorder: &mut dyn Reorder,
    ) -> Result<(Solution, f64), ScheduleError> {
        self.threads()?.install(|| reorder::run(&mut self, reorder));
        Ok(self.incumbent.into_best())
    }

    fn threads(&self) -> Result<rayon::ThreadPool, ScheduleError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.env.threads.max(1)).build();
        pool.map_err(|e| ScheduleError::NotApplicable {
            schedule: "dip".into(),
            reason: format!("its threads could not be started: {e}"),
        })
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
