//! How diffusion transformers are built and measured.

use burn::tensor::backend::Backend;
use dip_core::{ModelSpec, ModuleSpec};

use super::DitChunk;
use crate::batch::Microbatch;
use crate::model::probe::counts_up_to;
use crate::model::{
    AnyChunk, ChunkSpec, Init, KeptGrowth, ModelError, ProbeInput, ProbeSpec, TrainableModality,
};

/// Diffusion transformers in the table of modalities.
#[derive(Debug, Clone, Copy, Default)]
pub struct DitModality;

impl<B: Backend> TrainableModality<B> for DitModality {
    fn build(
        &self,
        chunk: &ChunkSpec<'_>,
        init: &Init<'_, B>,
    ) -> Result<Box<dyn AnyChunk<B>>, ModelError> {
        Ok(Box::new(DitChunk::init(chunk, chunk.settings()?, init)?))
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
        probe.instances as usize * probe.clip.grid.tokens()
    }

    fn inputs(&self, probe: &ProbeSpec<'_>, microbatch: &Microbatch) -> Vec<ProbeInput> {
        let inputs = probe.model.inputs_of(probe.module).into_iter();
        let captions = |module: dip_core::ModuleId| ProbeInput {
            module,
            rows: microbatch.tokens.len(),
            width: probe.model.modules[module.index()].hidden as usize,
        };
        inputs.map(captions).collect()
    }

    fn inner_rows(&self, probe: &ProbeSpec<'_>, microbatch: &Microbatch) -> usize {
        let dit = probe.module().kind.get().expect("a module of this modality");
        super::wire_rows(dit, microbatch)
    }

    fn kept_growth(&self, _: &ModelSpec) -> KeptGrowth {
        KeptGrowth::Clips
    }
}
