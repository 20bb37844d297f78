//! Several clips packed into one microbatch.

use dip_core::{ClipMeta, MicrobatchMeta};

use super::grid::{LatentShape, Latents};
use crate::batch::{Clip, Microbatch, text_positions};

/// A decoded clip.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReadyClip {
    pub latents: Latents,
    /// Tokens of its caption.
    pub caption: Vec<u32>,
    /// Its number in the run, from 0: noise and time of the clip follow from it.
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

/// One microbatch of captions and clips; `noisy` adds the noise to each clip.
pub(crate) fn microbatch(clips: &[ReadyClip], noisy: impl Fn(&ReadyClip) -> Clip) -> Microbatch {
    let mut m = Microbatch::default();
    for (document, clip) in clips.iter().enumerate() {
        m.tokens.extend(&clip.caption);
        m.positions.extend(text_positions(clip.caption.len()));
        m.documents.resize(m.tokens.len(), document as u32);
        m.clips.push(noisy(clip));
    }
    m.targets = vec![0; m.tokens.len()];
    m.loss_mask = vec![false; m.tokens.len()];
    m
}

/// The metadata of these clips for the planner.
pub(crate) fn meta(clips: &[ReadyClip], shape: &LatentShape) -> MicrobatchMeta {
    let clips = clips.iter().map(|clip| clip.meta(shape)).collect();
    MicrobatchMeta { clips, ..MicrobatchMeta::default() }
}
