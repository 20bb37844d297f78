//! The evaluation of a run.

use thiserror::Error;

use super::config::EvaluationConfig;
use super::report::Evaluation;
use crate::data::DataError;
use crate::inference::Inference;
use crate::runtime::PipelineError;

/// Measures a model on data that it was not trained on.
///
/// Of several processes each evaluates: all must ask the model for the same, in the same order.
pub trait Evaluator: Send {
    /// The loss on held-out data; if `generates`, also captions or samples.
    ///
    /// # Errors
    /// [`EvaluationError`] if the data cannot be used, or the model's device has failed.
    fn evaluate(
        &self,
        model: &mut dyn Inference,
        config: &EvaluationConfig,
        generates: bool,
    ) -> Result<Evaluation, EvaluationError>;
}

/// A model that could not be evaluated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// The held-out data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The pipeline of the model.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// Any other failure of an evaluator.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}
