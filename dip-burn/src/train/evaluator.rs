//! The evaluation of a run: the traits of evaluators, and of the model that they evaluate.

use burn::tensor::backend::Backend;
use thiserror::Error;

use super::config::EvaluationConfig;
use super::report::Evaluation;
use crate::batch::Microbatch;
use crate::data::{DataError, Latents};
use crate::model::sampler::{ClipPrompt, Sampler};
use crate::model::{Prompt, WholeModel};
use crate::params::ReadError;

/// Measures a model on data that it was not trained on.
pub trait Evaluator: Send {
    /// The loss on held-out data; if `generates`, also captions or samples.
    ///
    /// # Errors
    /// [`EvaluationError`] if the data cannot be used, or the model's device has failed.
    fn evaluate(
        &self,
        model: &dyn Inference,
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
    /// The device of the model.
    #[error(transparent)]
    Device(#[from] ReadError),
    /// Any other failure of an evaluator.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// A model that predicts, on any backend.
pub trait Inference {
    /// Mean loss of the trained tokens: cross-entropy in nats, or squared error of the velocity.
    ///
    /// # Errors
    /// [`ReadError`] if the device has failed.
    fn loss(&self, microbatches: &[Microbatch]) -> Result<f64, ReadError>;

    /// Continues each prompt greedily, up to `stop` or to `max_tokens` tokens.
    ///
    /// # Errors
    /// [`ReadError`] if the device has failed.
    fn generate(
        &self,
        prompts: &[Prompt],
        stop: u32,
        max_tokens: usize,
    ) -> Result<Vec<Vec<u32>>, ReadError>;

    /// Samples a clip for each prompt. The noise follows from the seed.
    ///
    /// # Errors
    /// [`ReadError`] if the device has failed.
    fn sample(
        &self,
        sampler: &Sampler,
        prompts: &[ClipPrompt],
        seed: u64,
    ) -> Result<Vec<Latents>, ReadError>;
}

impl<B: Backend> Inference for WholeModel<B> {
    fn loss(&self, microbatches: &[Microbatch]) -> Result<f64, ReadError> {
        Self::loss(self, microbatches)
    }

    fn generate(
        &self,
        prompts: &[Prompt],
        stop: u32,
        max_tokens: usize,
    ) -> Result<Vec<Vec<u32>>, ReadError> {
        Self::generate(self, prompts, stop, max_tokens)
    }

    fn sample(
        &self,
        sampler: &Sampler,
        prompts: &[ClipPrompt],
        seed: u64,
    ) -> Result<Vec<Latents>, ReadError> {
        sampler.sample(self, prompts, seed)
    }
}
