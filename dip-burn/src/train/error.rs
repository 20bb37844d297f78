//! Errors of a run.

use dip_core::PlanError;
use thiserror::Error;

use super::evaluator::EvaluationError;
use super::lock::LockError;
use super::metrics::SinkError;
use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::model::ModelError;
use crate::params::ParameterError;
use crate::runtime::{GroupError, PipelineError};
use crate::stage::NonFinite;
use crate::weights::WeightsError;

/// A run that cannot start or continue.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The planner.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A rank.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// Another process.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The evaluation.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Another run uses the output folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A metric sink.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The initial weights.
    #[error("weights.from: {0}")]
    Weights(#[from] Box<WeightsError>),
    /// Weights do not fit the model.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// A plan does not pass the checker.
    #[error(
        "the plan of iteration {iteration} has {violations} violations, the first: {first}; correct the schedule"
    )]
    InvalidPlan {
        /// The iteration.
        iteration: u64,
        /// Number of violations.
        violations: usize,
        /// The first violation.
        first: String,
    },
    /// A batch cannot be assigned to the replicas.
    #[error(
        "{microbatches} microbatches cannot be assigned to {replicas} replicas, each once and at least one to every replica; \
         raise data.microbatches or data.tokens_per_iteration, or lower pipeline.replicas"
    )]
    Assignment {
        /// Microbatches of the batch.
        microbatches: usize,
        /// Replicas.
        replicas: usize,
    },
    /// The gradients are no longer finite.
    #[error(
        "the gradient norm of iteration {iteration} is {norm}{}; lower optimizer.learning_rate, or set pipeline.precision to \"f32\"",
        first(place)
    )]
    Gradients {
        /// The iteration.
        iteration: u64,
        /// Its gradient norm.
        norm: f64,
        /// The first value that is not finite, if it was found.
        place: Option<NonFinite>,
    },
    /// The loss is no longer finite.
    #[error(
        "the loss of iteration {iteration} is {loss}{}; lower optimizer.learning_rate, or clip with optimizer.clip_norm",
        first(place)
    )]
    Diverged {
        /// The iteration.
        iteration: u64,
        /// Its loss.
        loss: f64,
        /// The first value that is not finite, if it was found.
        place: Option<NonFinite>,
    },
}

/// The place of the first value that is not finite, as the end of a sentence.
fn first(place: &Option<NonFinite>) -> String {
    place.as_ref().map_or_else(String::new, |place| format!(", first in {place}"))
}

impl TrainError {
    /// The same error with the place of the first value that is not finite.
    pub(super) fn at(self, place: Option<NonFinite>) -> Self {
        match self {
            Self::Gradients { iteration, norm, .. } => Self::Gradients { iteration, norm, place },
            Self::Diverged { iteration, loss, .. } => Self::Diverged { iteration, loss, place },
            other => other,
        }
    }
}
