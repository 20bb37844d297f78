//! The trait of every schedule, and the environment it runs in.

use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use crate::plan::graph::TaskGraph;
use crate::plan::partition::Placement;
use crate::plan::plan::Plan;
use crate::plan::timeline::TimelineError;
use crate::spec::{Bytes, RankId, Seconds};

/// Turns a task graph into a plan, within the limits the graph states.
pub trait Schedule: Send + Sync {
    /// The name in plans and on the command line.
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

    /// Plans one iteration. Every plan passes [`check_plan`](crate::plan::check::check_plan).
    ///
    /// # Errors
    /// [`ScheduleError`] where no plan is possible; it says which rank needs how much.
    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError>;
}

/// What a search may use: seed, budget, threads, and where it reports.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// Equal seeds give equal plans under an iteration budget.
    pub seed: u64,
    /// When to stop.
    pub budget: Budget,
    /// Threads it may use.
    pub threads: usize,
    /// Told of every better plan.
    pub progress: Option<&'a dyn Progress>,
    /// Set by the caller to stop early with the best plan so far.
    pub cancel: Option<&'a AtomicBool>,
    /// The plan of the batch before, of the same model on the same ranks: a search may start from what is regular in it.
    pub previous: Option<&'a Plan>,
}

/// When a search stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// After so much wall-clock time.
    Time(Seconds),
    /// After so many iterations of the search, whatever the time: reproducible.
    Iterations(u64),
}

/// Receives the progress of a search.
pub trait Progress: Sync {
    /// A better plan was found `elapsed` after the start, at `iteration`, with `makespan`.
    fn improved(&self, elapsed: Seconds, iteration: u64, makespan: Seconds);
}

impl Default for Environment<'_> {
    /// One thread, seed 0 and 200 iterations: reproducible and quick.
    fn default() -> Self {
        Self {
            seed: 0,
            budget: Budget::Iterations(200),
            threads: 1,
            progress: None,
            cancel: None,
            previous: None,
        }
    }
}

impl Environment<'_> {
    /// Whether the caller asked to stop.
    pub fn cancelled(&self) -> bool {
        self.cancel.is_some_and(|c| c.load(Ordering::Relaxed))
    }
}

/// A graph for which a schedule has no plan.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ScheduleError {
    /// No order fits the memory of a rank.
    #[error(
        "rank {rank} needs at least {needed} of memory, but its limit is {limit}; raise memory_limit_bytes[{rank}] \
         or offer a smaller strategy"
    )]
    Infeasible {
        /// The rank.
        rank: RankId,
        /// The least that any order needs, as far as the schedule can tell.
        needed: Bytes,
        /// What it has.
        limit: Bytes,
    },
    /// The dependencies form a cycle.
    #[error(
        "the dependencies of the graph form a cycle through task {task}; remove one of its edges"
    )]
    Cycle {
        /// A task on the cycle.
        task: crate::spec::TaskId,
    },
    /// The schedule does not apply to this graph.
    #[error("schedule {schedule:?} does not apply: {reason}")]
    NotApplicable {
        /// The schedule.
        schedule: String,
        /// Why, and what to use instead.
        reason: String,
    },
    /// The order that was made has no timeline: a defect of the schedule.
    #[error("schedule {schedule:?} made an invalid order: {source}")]
    InvalidOrder {
        /// The schedule.
        schedule: String,
        /// What is wrong with it.
        source: TimelineError,
    },
}
