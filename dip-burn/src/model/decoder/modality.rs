//! How decoders are built and measured.

use burn::tensor::backend::Backend;
use dip_core::{ModelSpec, ModuleSpec};

use super::DecoderChunk;
use crate::batch::Microbatch;
use crate::model::probe::counts_up_to;
use crate::model::{
    AnyChunk, ChunkSpec, Init, KeptGrowth, ModelError, ProbeInput, ProbeSpec, TrainableModality,
};

/// Decoders in the table of modalities. In a model of clips a decoder reads captions.
#[derive(Debug, Clone, Copy, Default)]
pub struct DecoderModality;

impl<B: Backend> TrainableModality<B> for DecoderModality {
    fn build(
        &self,
        chunk: &ChunkSpec<'_>,
        init: &Init<'_, B>,
    ) -> Result<Box<dyn AnyChunk<B>>, ModelError> {
        Ok(Box::new(DecoderChunk::init(chunk, chunk.settings()?, init)?))
    }

    fn instances(&self, _: &ModuleSpec, microbatch: &Microbatch) -> u32 {
        match microbatch.clips.len() {
            0 => 1,
            clips => clips as u32,
        }
    }

    fn measured_counts(&self, model: &ModelSpec) -> Vec<u32> {
        match model.video() {
            Some(_) => counts_up_to(model.max_clips.max(2)),
            None => vec![1],
        }
    }

    /// Images fill half of a packed sequence.
    fn probe(&self, probe: &ProbeSpec<'_>) -> Microbatch {
        if probe.model.video().is_some() {
            return probe.clips();
        }
        let half = probe.model.sequence_tokens as usize / 2;
        probe.packed_sequence(half.checked_div(probe.tokens_per_image()).unwrap_or(0))
    }

    fn rows(&self, probe: &ProbeSpec<'_>) -> usize {
        match probe.model.video() {
            Some(_) => probe.instances as usize * probe.clip.caption_tokens as usize,
            None => probe.model.sequence_tokens as usize,
        }
    }

    fn inputs(&self, probe: &ProbeSpec<'_>, microbatch: &Microbatch) -> Vec<ProbeInput> {
        let rows = microbatch.images.iter().map(|image| image.tokens as usize).sum();
        let sees = |m: &dip_core::ModuleId| probe.model.modules[m.index()].tokens_per_image() > 0;
        let encoder = probe.model.inputs_of(probe.module).into_iter().find(sees);
        let width = probe.module().hidden as usize;
        encoder
            .filter(|_| rows > 0)
            .map(|module| ProbeInput { module, rows, width })
            .into_iter()
            .collect()
    }

    fn kept_growth(&self, model: &ModelSpec) -> KeptGrowth {
        match model.video() {
            Some(_) => KeptGrowth::Captions,
            None => KeptGrowth::Documents,
        }
    }
}
