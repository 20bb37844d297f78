//! From metadata to work: how many instances a microbatch gives a module, and what a slice of them costs.

use std::ops::Range;

use crate::batch::MicrobatchMeta;
use crate::ids::ModuleId;
use crate::model::{ModelSpec, ModuleKind};

/// What the instances of a module are counted in. Slices of two modules with the same space correspond one to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstanceSpace {
    /// Images of the microbatch.
    Images,
    /// Sounds of the microbatch.
    Sounds,
    /// The one packed sequence of the microbatch.
    Sequence,
    /// Clips of the microbatch, or their captions.
    Clips,
}

/// The work of one sub-microbatch in one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Workload {
    /// Instances: images, sounds, sequences or clips.
    pub instances: u32,
    /// Tokens that pass through the layers.
    pub tokens: u64,
    /// Query-key pairs of self-attention, over all sequences, causal masking counted.
    pub attention_pairs: u64,
    /// Query-key pairs of cross attention.
    pub cross_pairs: u64,
    /// Tokens handed to the consumers of the module (after merging).
    pub output_tokens: u64,
}

impl ModelSpec {
    /// The instance space of a module for one microbatch, and the number of its instances, `N_i`.
    /// A decoder sees the packed sequence, or, where there is none, one caption a clip.
    pub fn instances(&self, module: ModuleId, microbatch: &MicrobatchMeta) -> (InstanceSpace, u32) {
        let clips = microbatch.clips.len() as u32;
        match self.modules[module.index()].kind {
            ModuleKind::Vit { .. } => (InstanceSpace::Images, microbatch.images),
            ModuleKind::Audio { .. } => {
                (InstanceSpace::Sounds, microbatch.audio_seconds.len() as u32)
            }
            ModuleKind::Dit { .. } => (InstanceSpace::Clips, clips),
            ModuleKind::Decoder { .. } if microbatch.has_sequence() => (InstanceSpace::Sequence, 1),
            ModuleKind::Decoder { .. } => (InstanceSpace::Clips, clips),
        }
    }

    /// The work of `slice`, a range of the instances of `module` in `microbatch`.
    pub fn workload(
        &self,
        module: ModuleId,
        microbatch: &MicrobatchMeta,
        slice: Range<u32>,
    ) -> Workload {
        let n = slice.len() as u64;
        let range = slice.start as usize..slice.end as usize;
        let spec = &self.modules[module.index()];
        let mut work = Workload { instances: slice.len() as u32, ..Workload::default() };
        match spec.kind {
            ModuleKind::Vit { .. } => {
                let patches = u64::from(spec.patches_per_image());
                work.tokens = n * patches;
                work.attention_pairs = n * patches * patches;
                work.output_tokens = n * u64::from(spec.tokens_per_image());
            }
            ModuleKind::Audio { frames_per_second, merge } => {
                for s in &microbatch.audio_seconds[range] {
                    let frames = audio_frames(*s, frames_per_second);
                    work.tokens += frames;
                    work.attention_pairs += frames * frames;
                    work.output_tokens += frames.div_ceil(u64::from(merge));
                }
            }
            ModuleKind::Decoder { .. } if microbatch.has_sequence() => {
                let tokens = self.sequence_length(microbatch);
                work.tokens = tokens;
                work.attention_pairs = causal_pairs(tokens);
                work.output_tokens = tokens;
            }
            ModuleKind::Decoder { .. } => {
                for clip in &microbatch.clips[range] {
                    work.tokens += clip.caption_tokens;
                    work.attention_pairs += causal_pairs(clip.caption_tokens);
                }
                work.output_tokens = work.tokens;
            }
            ModuleKind::Dit { latent_frames_per_second, tokens_per_frame, .. } => {
                for clip in &microbatch.clips[range] {
                    let frames = (clip.seconds * latent_frames_per_second).ceil().max(1.0) as u64;
                    let tokens = frames * u64::from(tokens_per_frame);
                    work.tokens += tokens;
                    work.attention_pairs += tokens * tokens;
                    work.cross_pairs += tokens * clip.caption_tokens;
                }
                work.output_tokens = work.tokens;
            }
        }
        work
    }

    /// Tokens of the packed sequence of a microbatch: text, images, sounds and captions.
    pub fn sequence_length(&self, microbatch: &MicrobatchMeta) -> u64 {
        let captions: u64 = microbatch.clips.iter().map(|c| c.caption_tokens).sum();
        let mut tokens = microbatch.text_tokens + captions;
        for m in &self.modules {
            match m.kind {
                ModuleKind::Vit { .. } => {
                    tokens += u64::from(microbatch.images) * u64::from(m.tokens_per_image());
                }
                ModuleKind::Audio { frames_per_second, merge } => {
                    let frames = |s: &f64| audio_frames(*s, frames_per_second);
                    let merged = |s: &f64| frames(s).div_ceil(u64::from(merge));
                    tokens += microbatch.audio_seconds.iter().map(merged).sum::<u64>();
                }
                ModuleKind::Decoder { .. } | ModuleKind::Dit { .. } => {}
            }
        }
        tokens
    }
}

impl MicrobatchMeta {
    /// Whether there is a packed sequence: text, images or sounds, not only clips with captions.
    pub fn has_sequence(&self) -> bool {
        self.text_tokens > 0 || self.images > 0 || !self.audio_seconds.is_empty()
    }
}

fn audio_frames(seconds: f64, frames_per_second: u32) -> u64 {
    (seconds * f64::from(frames_per_second)).ceil().max(1.0) as u64
}

fn causal_pairs(tokens: u64) -> u64 {
    tokens.saturating_mul(tokens.saturating_add(1)) / 2
}
