//! What a run is evaluated by, and what an evaluation asks of a model.

use burn::tensor::backend::Backend;

use super::config::EvaluationConfig;
use super::report::Evaluation;
use crate::batch::{ClipGrid, Microbatch};
use crate::data::{DataError, Latents};
use crate::model::sampler::Sampler;
use crate::model::{Prompt, WholeModel};

/// Measures a model on data that it was not trained on.
pub trait Evaluator: Send {
    /// The loss on held-out data; if `generates`, also captions or samples.
    ///
    /// # Errors
    /// [`DataError`] if the data cannot be read or tokenised.
    fn evaluate(
        &self,
        model: &dyn Inference,
        config: &EvaluationConfig,
        generates: bool,
    ) -> Result<Evaluation, DataError>;
}

/// A model that predicts, whatever it computes on.
pub trait Inference {
    /// Mean loss of the trained tokens: cross-entropy in nats, or squared error of the velocity.
    fn loss(&self, microbatches: &[Microbatch]) -> f64;

    /// Continues each prompt greedily, up to `stop` or to `max_tokens` tokens.
    fn generate(&self, prompts: &[Prompt], stop: u32, max_tokens: usize) -> Vec<Vec<u32>>;

    /// Samples a clip for each caption, given as tokens, in the size beside it. The noise follows from the seed.
    fn sample(
        &self,
        sampler: &Sampler,
        captions: &[(Vec<u32>, ClipGrid)],
        seed: u64,
    ) -> Vec<Latents>;
}

impl<B: Backend> Inference for WholeModel<B> {
    fn loss(&self, microbatches: &[Microbatch]) -> f64 {
        Self::loss(self, microbatches)
    }

    fn generate(&self, prompts: &[Prompt], stop: u32, max_tokens: usize) -> Vec<Vec<u32>> {
        Self::generate(self, prompts, stop, max_tokens)
    }

    fn sample(
        &self,
        sampler: &Sampler,
        captions: &[(Vec<u32>, ClipGrid)],
        seed: u64,
    ) -> Vec<Latents> {
        sampler.sample(self, captions, seed)
    }
}
