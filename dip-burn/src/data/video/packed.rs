//! Clips side by side in one microbatch.

use dip_core::{ClipMeta, MicrobatchMeta};

use super::grid::{LatentShape, Latents};
use crate::batch::{Clip, Microbatch};

/// A clip that is decoded, with the tokens of its caption and its number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReadyClip {
    pub latents: Latents,
    pub caption: Vec<u32>,
    pub number: u64,
}

impl ReadyClip {
    pub fn meta(&self, shape: &LatentShape) -> ClipMeta {
        ClipMeta {
            seconds: shape.seconds(self.latents.grid.frames),
            caption_tokens: self.caption.len() as u64,
            tokens_per_frame: Some(self.latents.grid.tokens_per_frame()),
        }
    }
}

/// Captions and clips one after the other; `noisy` puts each clip on its way.
pub(crate) fn microbatch(clips: &[ReadyClip], noisy: impl Fn(&ReadyClip) -> Clip) -> Microbatch {
    let mut m = Microbatch::default();
    for (document, clip) in clips.iter().enumerate() {
        m.tokens.extend(&clip.caption);
        m.positions.extend(0..clip.caption.len() as u32);
        m.documents.resize(m.tokens.len(), document as u32);
        m.clips.push(noisy(clip));
    }
    m.targets = vec![0; m.tokens.len()];
    m.loss_mask = vec![false; m.tokens.len()];
    m
}

/// What the planner may know of them.
pub(crate) fn meta(clips: &[ReadyClip], shape: &LatentShape) -> MicrobatchMeta {
    let clips = clips.iter().map(|clip| clip.meta(shape)).collect();
    MicrobatchMeta { clips, ..MicrobatchMeta::default() }
}
