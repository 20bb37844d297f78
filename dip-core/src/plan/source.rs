//! Where the trainer gets its plans from.

use thiserror::Error;

use crate::plan::build::BuildError;
use crate::plan::partition::BatchSplit;
use crate::plan::plan::Plan;
use crate::plan::schedule::ScheduleError;
use crate::spec::{BatchMeta, Seconds};

/// Plans batches ahead of their training: the planner of dip-sched, or a fixed list in tests.
///
/// The trainer submits the metadata of batch `k + 1` before it trains batch `k`, and takes plans in the order in which it
/// submitted their batches.
pub trait PlanSource {
    /// Starts planning a batch. Returns at once.
    ///
    /// # Errors
    /// [`PlanError`] where the planner is gone.
    fn submit(&mut self, batch: BatchMeta) -> Result<(), PlanError>;

    /// The plan of the oldest batch that was submitted and not yet taken.
    ///
    /// # Errors
    /// [`PlanError`] where the batch has no plan.
    fn take(&mut self) -> Result<PlannedBatch, PlanError>;

    /// Tells how long the last iteration took: the time that planning may use behind the next one.
    fn measured(&mut self, iteration: Seconds) {
        let _ = iteration;
    }
}

/// A batch with its plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedBatch {
    /// The batch.
    pub batch: BatchMeta,
    /// How it was cut.
    pub split: BatchSplit,
    /// The plan.
    pub plan: Plan,
    /// How long [`PlanSource::take`] had to wait for it.
    pub stall: Seconds,
    /// How long the search ran, on its own thread.
    pub search: Seconds,
    /// Whether a default schedule stands in, because the search was not ready in time.
    pub fallback: bool,
}

/// A batch without a plan.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PlanError {
    /// The task graph could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// No schedule was found.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Nothing was submitted.
    #[error("a plan was taken before a batch was submitted")]
    Empty,
    /// The planning thread ended.
    #[error("the planning thread has ended: {0}")]
    Gone(String),
}
