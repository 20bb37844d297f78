//! Errors of weights and optimiser state that are loaded into a pipeline.

use thiserror::Error;

use super::optimizer::StateError;
use crate::params::ParameterError;

/// Tensors that do not fit the model.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Weights.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// Optimiser state.
    #[error(transparent)]
    State(#[from] StateError),
}
