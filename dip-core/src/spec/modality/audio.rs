//! Audio encoders.

use serde::{Deserialize, Serialize};

use super::{
    Filling, InstanceSpace, MicrobatchMeta, Modality, ModuleSlice, ModuleSpec, TYPICAL_INSTANCES,
    Workload, add, square,
};
use crate::spec::error::FieldError;

/// Width of the two convolutions at the start of an audio encoder, in frames, as in Whisper.
pub const AUDIO_KERNEL: u64 = 3;
/// Mel bands of a frame in Whisper large.
const MEL_BANDS: u32 = 128;
/// Encoder frames of 30 seconds in Whisper.
const MAX_FRAMES: u32 = 1500;
/// Length of a typical sound, in seconds.
const TYPICAL_SECONDS: f64 = 10.0;

/// Audio encoder of the Whisper type: two convolutions over log-mel frames, of which the second halves the number of frames, fixed
/// sinusoidal positions, layers, and an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AudioSpec {
    /// Encoder frames per second of sound; half of the mel frames.
    pub frames_per_second: u32,
    /// Frames merged into one token of the decoder.
    pub merge: u32,
    /// Mel bands of a frame.
    #[serde(default = "mel_bands", skip_serializing_if = "has_mel_bands")]
    pub mel_bands: u32,
    /// Encoder frames of the longest sound that training reads; longer sounds are cut.
    #[serde(default = "max_frames", skip_serializing_if = "has_max_frames")]
    pub max_frames: u32,
    /// How frames become tokens.
    #[serde(default, skip_serializing_if = "AudioProjector::is_merger")]
    pub projector: AudioProjector,
}

const fn mel_bands() -> u32 {
    MEL_BANDS
}

const fn max_frames() -> u32 {
    MAX_FRAMES
}

fn has_mel_bands(bands: &u32) -> bool {
    *bands == MEL_BANDS
}

fn has_max_frames(frames: &u32) -> bool {
    *frames == MAX_FRAMES
}

/// How an audio encoder turns its frames into tokens of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AudioProjector {
    /// A norm, neighbouring frames side by side, and two linear layers. The last token of a sound is filled up with zeros.
    #[default]
    Merger,
    /// The mean of neighbouring frames, a norm, and one linear layer, as in Qwen2-Audio. Frames that fill no token are left out.
    Pooled,
}

impl AudioProjector {
    /// True if it is the default.
    pub fn is_merger(&self) -> bool {
        *self == Self::Merger
    }
}

impl AudioSpec {
    /// An encoder with the mel bands and the longest sound of Whisper large, and a merging adapter.
    pub fn new(frames_per_second: u32, merge: u32) -> Self {
        Self {
            frames_per_second,
            merge,
            mel_bands: MEL_BANDS,
            max_frames: MAX_FRAMES,
            projector: AudioProjector::Merger,
        }
    }

    /// Encoder frames of a sound.
    pub fn frames(&self, seconds: f64) -> u64 {
        // Lengths are whole numbers of samples, so that a tiny excess is a rounding error.
        (seconds * f64::from(self.frames_per_second) - 1e-6).ceil().max(1.0) as u64
    }

    /// Tokens in the decoder of a sound of `frames` encoder frames; 0 if a pooled sound is too short for one.
    pub fn tokens_of(&self, frames: u64) -> u64 {
        let merge = u64::from(self.merge.max(1));
        match self.projector {
            AudioProjector::Merger => frames.div_ceil(merge),
            AudioProjector::Pooled => frames / merge,
        }
    }

    /// Tokens of a sound in the decoder.
    fn tokens(&self, seconds: f64) -> u64 {
        self.tokens_of(self.frames(seconds)).max(1)
    }
}

impl Modality for AudioSpec {
    fn name(&self) -> &str {
        "audio"
    }

    fn validate(&self, module: &ModuleSpec) -> Result<(), FieldError> {
        module.check("kind.audio.frames_per_second", self.frames_per_second, 1 << 16)?;
        module.check("kind.audio.merge", self.merge, 1 << 16)?;
        module.check("kind.audio.mel_bands", self.mel_bands, 1 << 10)?;
        module.check("kind.audio.max_frames", self.max_frames, 1 << 20)
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
        AUDIO_KERNEL * hidden * (u64::from(self.mel_bands) + hidden)
    }

    fn end_parameters(&self, module: &ModuleSpec, output_width: u64) -> u64 {
        match self.projector {
            AudioProjector::Merger => {
                module.adapter_width().saturating_mul(module.merged_width() + output_width)
            }
            AudioProjector::Pooled => u64::from(module.hidden) * output_width,
        }
    }

    fn merged_rows(&self) -> u64 {
        match self.projector {
            AudioProjector::Merger => u64::from(self.merge),
            AudioProjector::Pooled => 1,
        }
    }

    fn fill(&self, at: &Filling<'_>, microbatch: &mut MicrobatchMeta) {
        microbatch.audio_seconds = vec![TYPICAL_SECONDS; at.part(TYPICAL_INSTANCES) as usize];
    }

    fn microbatch_of(&self, _: &ModuleSpec, tokens: u64) -> MicrobatchMeta {
        let seconds = tokens as f64 / f64::from(self.frames_per_second);
        MicrobatchMeta { audio_seconds: vec![seconds], ..MicrobatchMeta::default() }
    }
}
