//! One tensor of optimiser state, read for its parameter.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use thiserror::Error;

use crate::params::NamedTensors;

/// Optimiser state that does not fit the model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StateError {
    /// A tensor has another shape than its parameter.
    #[error("{tensor} has shape {found:?}, but its parameter has {expected:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape of its parameter.
        expected: Vec<usize>,
    },
    /// One of the two moments of a parameter is missing.
    #[error("{tensor} is missing")]
    Missing {
        /// The moment.
        tensor: String,
    },
}

/// The tensor `name` on the device of its parameter, if there is one.
///
/// # Errors
/// [`StateError::Shape`] if it has another shape than its parameter.
pub(super) fn tensor_like<B: Backend, const D: usize>(
    tensors: &NamedTensors,
    name: String,
    parameter: &Tensor<B, D>,
) -> Result<Option<Tensor<B, D>>, StateError> {
    let Some(data) = tensors.get(&name) else { return Ok(None) };
    let expected = parameter.dims();
    if data.shape.dims() != expected {
        let (found, expected) = (data.shape.to_vec(), expected.to_vec());
        return Err(StateError::Shape { tensor: name, found, expected });
    }
    Ok(Some(Tensor::from_data(data.clone(), &parameter.device())))
}
