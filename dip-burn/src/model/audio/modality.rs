//! How audio encoders are built and measured.

use std::ops::Range;

use burn::tensor::backend::Backend;
use dip_core::{AudioSpec, ModuleSpec};

use super::AudioChunk;
use crate::batch::Microbatch;
use crate::model::{AnyChunk, ChunkSpec, Init, ModelError, ProbeSpec, TrainableModality};

/// Audio encoders in the table of modalities.
#[derive(Debug, Clone, Copy, Default)]
pub struct AudioModality;

impl<B: Backend> TrainableModality<B> for AudioModality {
    fn build(
        &self,
        chunk: &ChunkSpec<'_>,
        init: &Init<'_, B>,
    ) -> Result<Box<dyn AnyChunk<B>>, ModelError> {
        Ok(Box::new(AudioChunk::init(chunk, chunk.settings()?, init)))
    }

    fn instances(&self, _: &ModuleSpec, microbatch: &Microbatch) -> u32 {
        microbatch.sounds.len() as u32
    }

    fn places(
        &self,
        _: &ModuleSpec,
        microbatch: &Microbatch,
        instances: &Range<u32>,
    ) -> Vec<Range<u32>> {
        let sounds = &microbatch.sounds[instances.start as usize..instances.end as usize];
        sounds.iter().map(|sound| sound.offset..sound.offset + sound.tokens).collect()
    }

    fn probe(&self, probe: &ProbeSpec<'_>) -> Microbatch {
        let mut microbatch = probe.packed_sequence(0);
        probe.add_sounds(&mut microbatch, probe.instances as usize);
        microbatch
    }

    fn rows(&self, probe: &ProbeSpec<'_>) -> usize {
        let max_frames = probe.module().kind.get::<AudioSpec>().map_or(1, |audio| audio.max_frames);
        (probe.instances * probe.sound_frames.clamp(1, max_frames)) as usize
    }
}
