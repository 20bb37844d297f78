//! The trait of all schedules, and the environment of a search.

use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use crate::plan::graph::TaskGraph;
use crate::plan::judge::PlanJudge;
use crate::plan::partition::Placement;
use crate::plan::plan::Plan;
use crate::plan::timeline::TimelineError;
use crate::spec::{Bytes, RankId, Seconds, TaskId};

/// Turns a task graph into a plan that keeps the memory limits of the graph.
pub trait Schedule: Send + Sync {
    /// Its name in plans and on the command line.
    fn name(&self) -> &str;

    /// One line for lists of schedules.
    fn description(&self) -> &str {
        self.name()
    }

    /// The placement of layers that the schedule is made for.
    fn placement(&self) -> Placement {
        Placement::ModalityAware
    }

    /// True if the schedule searches for a plan within its budget, fast enough for the batches of a whole run. The placement
    /// of the model may then follow the plans it finds.
    fn searches(&self) -> bool {
        false
    }

    /// True if the schedule can place weight-gradient tasks freely. Splitting them from the backward may then shorten its
    /// plans.
    fn splits_weights(&self) -> bool {
        self.searches()
    }

    /// The number of segments that suits the schedule, as a multiple of the paper's `K_i`.
    ///
    /// Searches default to 2: with twice the segments the pipeline fills and drains in half the time. Their plans are then
    /// shorter on most models of the paper and longer on none.
    fn segment_factor(&self) -> u32 {
        if self.searches() { 2 } else { 1 }
    }

    /// Plans one iteration. Every plan passes [`check_plan`](crate::check_plan).
    ///
    /// # Errors
    /// [`ScheduleError`] if there is no plan. It names the rank and the memory it needs.
    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError>;
}

/// The environment of a search: seed, budget, threads and progress.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// Equal seeds give equal plans under an iteration budget.
    pub seed: u64,
    /// When the search stops.
    pub budget: Budget,
    /// Number of threads it may use.
    pub threads: usize,
    /// Is told about every better plan.
    pub progress: Option<&'a dyn SearchProgress>,
    /// The caller sets it to stop the search early, with the best plan so far.
    pub cancel: Option<&'a AtomicBool>,
    /// The plan of the previous batch, for the same model and ranks. A search may start from its pattern.
    pub previous: Option<&'a Plan>,
    /// Chooses among plans that are about as long. Without a judge, a search keeps the plan with the shortest predicted makespan.
    pub judge: Option<&'a dyn PlanJudge>,
}

/// When a search stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// After this wall-clock time.
    Time(Seconds),
    /// After this number of search iterations. Reproducible, because it does not depend on time.
    Iterations(u64),
}

/// Receives the progress of a search.
pub trait SearchProgress: Sync {
    /// Called for a better plan with this `makespan`, found at `iteration`, `elapsed` after the start of the search.
    fn improved(&self, elapsed: Seconds, iteration: u64, makespan: Seconds);
}

impl Default for Environment<'_> {
    /// One thread, seed 0 and 200 iterations: fast and reproducible.
    fn default() -> Self {
        Self {
            seed: 0,
            budget: Budget::Iterations(200),
            threads: 1,
            progress: None,
            cancel: None,
            previous: None,
            judge: None,
        }
    }
}

impl Environment<'_> {
    /// True if the caller asked to stop.
    pub fn cancelled(&self) -> bool {
        self.cancel.is_some_and(|c| c.load(Ordering::Relaxed))
    }
}

/// A graph that a schedule cannot plan.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// No order fits the memory of a rank.
    #[error(
        "rank {rank} needs at least {needed} of memory, but its limit is {limit}; raise memory_limit_bytes[{rank}] \
         or offer a smaller strategy"
    )]
    Infeasible {
        /// The rank.
        rank: RankId,
        /// A lower bound on the memory that any order needs.
        needed: Bytes,
        /// Its memory limit.
        limit: Bytes,
    },
    /// The dependencies form a cycle.
    #[error(
        "the dependencies of the graph form a cycle through task {task}; remove one of its edges"
    )]
    Cycle {
        /// A task on the cycle.
        task: TaskId,
    },
    /// The schedule does not apply to this graph.
    #[error("schedule {schedule:?} does not apply: {reason}")]
    NotApplicable {
        /// The schedule.
        schedule: String,
        /// The reason, and what to use instead.
        reason: String,
    },
    /// The schedule produced an order without a timeline, which is a defect of the schedule.
    #[error("schedule {schedule:?} produced an invalid order: {source}")]
    InvalidOrder {
        /// The schedule.
        schedule: String,
        /// The defect of the order.
        source: TimelineError,
    },
}
