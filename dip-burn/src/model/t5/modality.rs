//! How text encoders of the T5 type are built and measured.

use burn::tensor::backend::Backend;
use dip_core::{ModelSpec, ModuleSpec};

use super::T5Chunk;
use crate::batch::Microbatch;
use crate::model::probe::counts_up_to;
use crate::model::{
    AnyChunk, ChunkSpec, Init, KeptGrowth, ModelError, ProbeSpec, TrainableModality,
};

/// Text encoders of the T5 type in the table of modalities.
#[derive(Debug, Clone, Copy, Default)]
pub struct T5Modality;

impl<B: Backend> TrainableModality<B> for T5Modality {
    fn build(
        &self,
        chunk: &ChunkSpec<'_>,
        init: &Init<'_, B>,
    ) -> Result<Box<dyn AnyChunk<B>>, ModelError> {
        Ok(Box::new(T5Chunk::init(chunk, chunk.settings()?, init)))
    }

    fn instances(&self, _: &ModuleSpec, microbatch: &Microbatch) -> u32 {
        microbatch.clips.len() as u32
    }

    fn measured_counts(&self, model: &ModelSpec) -> Vec<u32> {
        counts_up_to(model.max_clips.max(2))
    }

    fn probe(&self, probe: &ProbeSpec<'_>) -> Microbatch {
        probe.clips()
    }

    fn rows(&self, probe: &ProbeSpec<'_>) -> usize {
        probe.instances as usize * probe.clip.caption_tokens as usize
    }

    fn kept_growth(&self, _: &ModelSpec) -> KeptGrowth {
        KeptGrowth::WholeCaptions
    }
}
