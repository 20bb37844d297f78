//! One tensor of optimiser state, read for its parameter.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use thiserror::Error;

use crate::params::TensorSource;

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
    /// A tensor cannot be read.
    #[error("{tensor} cannot be read: {what}")]
    Read {
        /// The tensor.
        tensor: String,
        /// The reason.
        what: String,
    },
}

/// The tensor `name` on the device of its parameter, if there is one.
///
/// # Errors
/// [`StateError`] if it cannot be read, or has another shape than its parameter.
pub(super) fn tensor_like<B: Backend, const D: usize>(
    tensors: &dyn TensorSource,
    name: String,
    parameter: &Tensor<B, D>,
) -> Result<Option<Tensor<B, D>>, StateError> {
    let data = match tensors.tensor(&name) {
        Ok(Some(data)) => data,
        Ok(None) => return Ok(None),
        Err(what) => return Err(StateError::Read { tensor: name, what }),
    };
    let expected = parameter.dims();
    if data.shape.dims() != expected {
        let (found, expected) = (data.shape.to_vec(), expected.to_vec());
        return Err(StateError::Shape { tensor: name, found, expected });
    }
    Ok(Some(Tensor::from_data(data, &parameter.device())))
}
