//! Losses, captions and clips of a model, through its pipeline.
//!
//! ```text
//! prompts -> captions: first the prompts, then one token of every caption at a time -> texts
//! noise   -> sampler: Euler steps with guidance                                      -> clips
//!            both -> ForwardPipeline: microbatches in flight, memories on the ranks
//! ```

mod captions;
mod sampler;

use burn::tensor::backend::Backend;

use crate::batch::{Microbatch, Prompt};
use crate::data::Latents;
use crate::model::Continuation;
use crate::runtime::{ForwardPipeline, PipelineError};

pub use captions::continue_prompts;
pub use sampler::{Captions, ClipModel, ClipPrompt, Sampler};

/// A model that predicts, on any backend.
pub trait Inference {
    /// Mean loss of the trained tokens: cross-entropy in nats, or squared error of the velocity.
    ///
    /// # Errors
    /// [`PipelineError`] if a rank has failed.
    fn loss(&mut self, microbatches: &[Microbatch]) -> Result<f64, PipelineError>;

    /// Continues each prompt.
    ///
    /// # Errors
    /// [`PipelineError`] if a rank has failed.
    fn generate(
        &mut self,
        prompts: &[Prompt],
        how: &Continuation,
    ) -> Result<Vec<Vec<u32>>, PipelineError>;

    /// Samples a clip for each prompt. The noise follows from the seed.
    ///
    /// # Errors
    /// [`PipelineError`] if a rank has failed.
    fn sample(
        &mut self,
        sampler: &Sampler,
        prompts: &[ClipPrompt],
        seed: u64,
    ) -> Result<Vec<Latents>, PipelineError>;
}

impl<B: Backend> Inference for ForwardPipeline<'_, B> {
    fn loss(&mut self, microbatches: &[Microbatch]) -> Result<f64, PipelineError> {
        Self::loss(self, microbatches)
    }

    fn generate(
        &mut self,
        prompts: &[Prompt],
        how: &Continuation,
    ) -> Result<Vec<Vec<u32>>, PipelineError> {
        continue_prompts(self, prompts, how)
    }

    fn sample(
        &mut self,
        sampler: &Sampler,
        prompts: &[ClipPrompt],
        seed: u64,
    ) -> Result<Vec<Latents>, PipelineError> {
        sampler.sample(self, prompts, seed)
    }
}
