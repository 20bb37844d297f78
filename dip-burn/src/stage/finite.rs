//! Finds the first value that is not finite, when an iteration runs again after its loss or gradients were not.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{MicrobatchId, StageCall, StageError};
use thiserror::Error;

use super::ChunkStage;
use crate::params::ReadError;

/// The place of a value that is not finite.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NonFinite {
    /// A tensor that a stage computed.
    #[error(
        "the {pass} of module {module:?}, layers {first} to {last}, in microbatch {microbatch}"
    )]
    Stage {
        /// `forward` or `backward`.
        pass: &'static str,
        /// The module.
        module: String,
        /// The first layer of the stage.
        first: usize,
        /// The last layer of the stage.
        last: usize,
        /// The microbatch, by its number in the batch of its replica.
        microbatch: MicrobatchId,
    },
    /// The sum of the gradients of a parameter.
    #[error("the gradient of {parameter}")]
    Gradient {
        /// The parameter.
        parameter: String,
    },
}

impl<B: Backend> ChunkStage<B> {
    /// Checks every tensor that the stage computes in this iteration. Every check waits for the device.
    pub fn check_values(&mut self) {
        self.checks = true;
    }

    /// Fails if a tensor has a value that is not finite, in an iteration with checks.
    pub(super) fn check<'t>(
        &self,
        call: &StageCall,
        pass: &'static str,
        tensors: impl IntoIterator<Item = &'t Tensor<B, 2>>,
    ) -> Result<(), StageError> {
        if !self.checks {
            return Ok(());
        }
        for x in tensors {
            let data = x.clone().try_into_data().map_err(|error| failed(ReadError::new(error)))?;
            if !data.iter::<f64>().all(f64::is_finite) {
                let first = self.naming.first_layer;
                return Err(failed(NonFinite::Stage {
                    pass,
                    module: self.naming.module.clone(),
                    first,
                    last: (first + self.layers).saturating_sub(1),
                    microbatch: call.pair.microbatch,
                }));
            }
        }
        Ok(())
    }

    /// Fails if a gradient of this iteration has a value that is not finite.
    ///
    /// # Errors
    /// [`StageError::Failed`] with a [`NonFinite`].
    pub fn check_gradients(&self) -> Result<(), StageError> {
        let mut gradients = self.gradients().into_iter();
        match gradients.find(|(_, data)| !data.iter::<f64>().all(f64::is_finite)) {
            Some((parameter, _)) => Err(failed(NonFinite::Gradient { parameter })),
            None => Ok(()),
        }
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> StageError {
    StageError::Failed(Box::new(error))
}
