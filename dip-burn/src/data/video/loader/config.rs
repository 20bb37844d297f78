//! The settings of a clip loader.

use dip_core::FieldError;

use crate::data::video::channels::LatentStatistics;
use crate::data::video::flow::FlowTimes;
use crate::data::video::grid::LatentShape;

/// The settings of a [`ClipLoader`](super::ClipLoader).
#[derive(Debug, Clone, PartialEq)]
pub struct ClipLoaderConfig {
    /// The tokens of a clip.
    pub shape: LatentShape,
    /// Normalises stored latents; absent if they are normalised already.
    pub statistics: Option<LatentStatistics>,
    /// The times at which clips are trained.
    pub times: FlowTimes,
    /// True if runs of white space in captions become one space, as in the training of Wan.
    pub joins_spaces: bool,
    /// Most clips of a microbatch.
    pub max_clips: u32,
    /// Most latent frames of a microbatch; longer clips are truncated.
    pub max_frames: u32,
    /// Most tokens of a caption; longer captions are truncated.
    pub caption_tokens: u32,
    /// Microbatches of a batch.
    pub microbatches: u32,
    /// Least clip tokens of a batch; if set, it replaces `microbatches`.
    pub tokens_per_batch: Option<u64>,
    /// Fraction of clips with an empty caption, for guidance.
    pub caption_dropout: f64,
    /// Seed of noise, times and dropout.
    pub seed: u64,
    /// Most batches that are decoded in advance.
    pub prefetch: usize,
}

impl ClipLoaderConfig {
    /// True if a batch with this many microbatches and tokens needs another microbatch.
    pub fn needs_more(&self, microbatches: usize, tokens: u64) -> bool {
        match self.tokens_per_batch {
            Some(budget) => tokens < budget,
            None => microbatches < self.microbatches as usize,
        }
    }

    /// The text of a caption that becomes tokens.
    pub fn caption_text(&self, caption: &str) -> String {
        match self.joins_spaces {
            true => joined_spaces(caption),
            false => caption.to_owned(),
        }
    }

    /// Checks every setting.
    pub fn validate(&self) -> Result<(), FieldError> {
        let remedy = "try a few for each rank";
        FieldError::check_range("microbatches", self.microbatches, 1..=65_536, remedy)?;
        let remedy = "give the model's max_clips, try 8";
        FieldError::check_range("max_clips", self.max_clips, 1..=4096, remedy)?;
        let frames = 1..=1 << 20;
        FieldError::check_range("frames of a microbatch", self.max_frames, frames, "try 64")?;
        let remedy = "raise sequence_tokens of the model";
        let tokens = 2..=1 << 20;
        FieldError::check_range("tokens of a caption", self.caption_tokens, tokens, remedy)?;
        FieldError::check_range("prefetch", self.prefetch, 1..=1024, "try 2")
    }
}

/// A caption as Wan was trained with: runs of white space are one space, and none is at either end.
pub fn joined_spaces(caption: &str) -> String {
    caption.split_whitespace().collect::<Vec<_>>().join(" ")
}
