//! How decoders are built and measured.

use burn::tensor::backend::Backend;
use dip_core::{AudioSpec, ModelSpec, ModuleId, ModuleSpec, VitSpec};

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

    /// Images and sounds together fill half of a packed sequence.
    fn probe(&self, probe: &ProbeSpec<'_>) -> Microbatch {
        if probe.model.video().is_some() {
            return probe.clips();
        }
        let half = probe.model.sequence_tokens as usize / 2;
        let per_instance = [probe.tokens_per_image(), probe.tokens_per_sound()];
        let encoders = per_instance.iter().filter(|&&tokens| tokens > 0).count();
        let fitting = |tokens: usize| (half / encoders.max(1)).checked_div(tokens).unwrap_or(0);
        let [images, sounds] = per_instance.map(fitting);
        let mut microbatch = probe.packed_sequence(images);
        probe.add_sounds(&mut microbatch, sounds);
        microbatch
    }

    fn rows(&self, probe: &ProbeSpec<'_>) -> usize {
        match probe.model.video() {
            Some(_) => probe.instances as usize * probe.clip.caption_tokens as usize,
            None => probe.model.sequence_tokens as usize,
        }
    }

    fn inputs(&self, probe: &ProbeSpec<'_>, microbatch: &Microbatch) -> Vec<ProbeInput> {
        let rows_of = |module: &ModuleSpec| -> usize {
            let images = microbatch.images.iter().map(|image| image.tokens as usize);
            let sounds = microbatch.sounds.iter().map(|sound| sound.tokens as usize);
            match module.kind.get::<AudioSpec>() {
                Some(_) => sounds.sum(),
                None if module.kind.get::<VitSpec>().is_some() => images.sum(),
                None => 0,
            }
        };
        let width = probe.module().hidden as usize;
        let input = |module: ModuleId| {
            let rows = rows_of(&probe.model.modules[module.index()]);
            ProbeInput { module, rows, width }
        };
        let inputs = probe.model.inputs_of(probe.module).into_iter().map(input);
        inputs.filter(|input| input.rows > 0).collect()
    }

    fn kept_growth(&self, model: &ModelSpec) -> KeptGrowth {
        match model.video() {
            Some(_) => KeptGrowth::Captions,
            None => KeptGrowth::Documents,
        }
    }
}
