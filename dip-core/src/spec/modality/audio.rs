//! Audio encoders.

use serde::{Deserialize, Serialize};

use super::{
    Filling, InstanceSpace, MicrobatchMeta, Modality, ModuleSlice, ModuleSpec, TYPICAL_INSTANCES,
    Workload, add, square,
};
use crate::spec::error::FieldError;

/// Mel bands of a frame of sound, as in Whisper.
pub const MEL_BANDS: u64 = 128;
/// Width of the two convolutions at the start of an audio encoder, in frames, as in Whisper.
pub const AUDIO_KERNEL: u64 = 3;
/// Length of a typical sound, in seconds.
const TYPICAL_SECONDS: f64 = 10.0;

/// Audio encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioSpec {
    /// Encoder frames per second of sound.
    pub frames_per_second: u32,
    /// Frames merged into one token of the decoder.
    pub merge: u32,
}

impl AudioSpec {
    /// Encoder frames of a sound.
    fn frames(&self, seconds: f64) -> u64 {
        (seconds * f64::from(self.frames_per_second)).ceil().max(1.0) as u64
    }

    /// Tokens of a sound in the decoder.
    fn tokens(&self, seconds: f64) -> u64 {
        self.frames(seconds).div_ceil(u64::from(self.merge))
    }
}

impl Modality for AudioSpec {
    fn name(&self) -> &str {
        "audio"
    }

    fn validate(&self, module: &ModuleSpec) -> Result<(), FieldError> {
        module.check("kind.audio.frames_per_second", self.frames_per_second, 1 << 16)?;
        module.check("kind.audio.merge", self.merge, 1 << 16)
    }

    fn instances(&self, _: &ModuleSpec, microbatch: &MicrobatchMeta) -> (InstanceSpace, u32) {
        (InstanceSpace::Sounds, microbatch.audio_seconds.len() as u32)
    }

    fn workload(&self, slice: &ModuleSlice<'_>) -> Workload {
        let mut work = slice.empty_workload();
        let range = slice.instances.start as usize..slice.instances.end as usize;
        for &seconds in &slice.microbatch.audio_seconds[range] {
            let frames = self.frames(seconds);
            work.tokens += frames;
            add(&mut work.attention_pairs, square(frames));
            work.output_tokens += self.tokens(seconds);
        }
        work.computed_pairs = work.attention_pairs;
        work
    }

    fn sequence_tokens(&self, _: &ModuleSpec, microbatch: &MicrobatchMeta) -> u64 {
        microbatch.audio_seconds.iter().map(|&seconds| self.tokens(seconds)).sum()
    }

    fn start_parameters(&self, module: &ModuleSpec, _: u64) -> u64 {
        let hidden = u64::from(module.hidden);
        AUDIO_KERNEL * hidden * (MEL_BANDS + hidden)
    }

    fn merged_rows(&self) -> u64 {
        u64::from(self.merge)
    }

    fn fill(&self, at: &Filling<'_>, microbatch: &mut MicrobatchMeta) {
        microbatch.audio_seconds = vec![TYPICAL_SECONDS; at.part(TYPICAL_INSTANCES) as usize];
    }

    fn microbatch_of(&self, _: &ModuleSpec, tokens: u64) -> MicrobatchMeta {
        let seconds = tokens as f64 / f64::from(self.frames_per_second);
        MicrobatchMeta { audio_seconds: vec![seconds], ..MicrobatchMeta::default() }
    }
}
