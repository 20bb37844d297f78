//! What ends a run.

use dip_core::PlanError;
use thiserror::Error;

use super::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::model::ModelError;
use crate::params::ParameterError;
use crate::runtime::PipelineError;
use crate::runtime::nodes::NodeError;
use crate::weights::WeightsError;

/// A run that cannot begin or go on.
#[derive(Debug, Error)]
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
    /// Another node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A checkpoint, or the metrics file.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Weights to begin with.
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
        /// How many.
        violations: usize,
        /// One of them.
        first: String,
    },
    /// A batch cannot be shared by the replicas.
    #[error(
        "{microbatches} microbatches were not dealt to {replicas} replicas so that each comes once and no replica has none; \
         raise data.microbatches or data.tokens_per_iteration, or lower pipeline.replicas or the number of nodes"
    )]
    Dealing {
        /// Microbatches of the batch.
        microbatches: usize,
        /// Replicas.
        replicas: usize,
    },
    /// The gradients are no numbers any more.
    #[error(
        "the gradient norm of iteration {iteration} is {norm}; lower optimizer.learning_rate, or set pipeline.precision to \"f32\""
    )]
    Gradients {
        /// The iteration.
        iteration: u64,
        /// Its gradient norm.
        norm: f64,
    },
    /// The loss is no number any more.
    #[error(
        "the loss of iteration {iteration} is {loss}; lower optimizer.learning_rate, or clip with optimizer.clip_norm"
    )]
    Diverged {
        /// The iteration.
        iteration: u64,
        /// Its loss.
        loss: f64,
    },
}
