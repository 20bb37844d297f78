//! The source of plans for the trainer.

use thiserror::Error;

use super::Trace;
use crate::plan::{BatchSplit, BuildError, Plan, ScheduleError};
use crate::spec::{BatchMeta, Seconds};

/// Plans batches before they are trained. Implemented by the planner of dip-sched, and by a fixed list in tests.
///
/// The trainer submits the metadata of batch `k + 1` before it trains batch `k`. It takes the plans in the order of
/// submission.
pub trait PlanSource {
    /// Starts planning a batch. Returns at once.
    ///
    /// # Errors
    /// [`PlanError`] if the planner is gone.
    fn submit(&mut self, batch: BatchMeta) -> Result<(), PlanError>;

    /// Returns the plan of the oldest batch that was submitted and not yet taken. Waits until it is ready.
    ///
    /// # Errors
    /// [`PlanError`] if the batch has no plan.
    fn take(&mut self) -> Result<PlannedBatch, PlanError>;

    /// Reports how the last iteration ran. Returns what is worth telling the user, such as a rank that is slower than others.
    fn measured(&mut self, iteration: &MeasuredIteration<'_>) -> Vec<String> {
        let _ = iteration;
        Vec::new()
    }
}

/// An iteration that has run.
#[derive(Debug, Clone, Copy)]
pub struct MeasuredIteration<'a> {
    /// The time to plan a batch while the next iteration runs: the duration of the iteration over the number of its plans.
    pub planning_time: Seconds,
    /// Its plans in the order in which they were taken, and when their stages ran; empty if stages were not timed.
    pub runs: &'a [(&'a Plan, &'a Trace)],
}

/// A batch with its plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedBatch {
    /// The batch.
    pub batch: BatchMeta,
    /// Its split into sub-microbatches.
    pub split: BatchSplit,
    /// Its plan.
    pub plan: Plan,
    /// The makespan to expect, as earlier iterations ran; that of the plan if nothing is known.
    pub expected: Seconds,
    /// Time that [`PlanSource::take`] waited for it.
    pub stall: Seconds,
    /// Duration of the search, on its own thread.
    pub search: Seconds,
    /// True if the plan is of a default schedule, because the search was not ready in time.
    pub fallback: bool,
}

/// A batch that has no plan.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The task graph could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The schedule found no plan.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// No batch was submitted.
    #[error("a plan was taken before a batch was submitted")]
    Empty,
    /// The planning thread has ended.
    #[error("the planning thread has ended: {0}")]
    Gone(String),
}
