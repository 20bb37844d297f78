//! A batch of one iteration: plain numbers, no tensors. All ranks read the same batch.

mod arrangement;
mod image;
mod positions;
mod prompt;

use std::collections::BTreeMap;
use std::ops::Range;

use dip_core::BatchSplit;
use serde::Serialize;

pub use arrangement::{Arrangement, JoinedTiles, PromptPiece, TileGrid};
pub use image::{Image, ImageLayout, View, ViewGrid};
pub use positions::{ImagePlace, PositionRule, next_position, text_positions};
pub use prompt::Prompt;

/// The microbatches of one iteration and their split into sub-microbatches.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The microbatches.
    pub microbatches: Vec<Microbatch>,
    /// The instances of every sub-microbatch of every module.
    pub split: BatchSplit,
    /// Tokens of text or of clips with a loss in the whole batch. The loss is divided by it, so that it does not depend on the
    /// split.
    pub trained_tokens: u64,
}

/// One packed sequence of `T` tokens with its images, or clips with their captions; each caption is a document.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Microbatch {
    /// Token ids, `[T]`.
    pub tokens: Vec<u32>,
    /// The document of each token, `[T]`; attention stays inside a document. Padding has its own id.
    pub documents: Vec<u32>,
    /// Position of each token in its document as time, row and column, `[T]`. See [`PositionRule`].
    pub positions: Vec<[u32; 3]>,
    /// The token to predict at each position, `[T]`.
    pub targets: Vec<u32>,
    /// True if the prediction has a loss, `[T]`.
    pub loss_mask: Vec<bool>,
    /// The images, in the order of the sequence.
    pub images: Vec<Image>,
    /// Offset of the first token of each image, `[images]`.
    pub image_offsets: Vec<u32>,
    /// The sounds, in the order of the sequence.
    pub sounds: Vec<Sound>,
    /// Instances of modules whose modality comes from another crate, by module.
    pub features: BTreeMap<String, Vec<Features>>,
    /// The clips; document `i` is the caption of clip `i`. Captions of clips have no loss themselves.
    pub clips: Vec<Clip>,
}

/// One instance of a modality from another crate, such as a point cloud.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    /// Values, row by row, `[rows, width]`.
    pub values: Vec<f32>,
    /// Values of a row.
    pub width: usize,
    /// Offset of its first token in the sequence.
    pub offset: u32,
    /// Number of its tokens in the sequence.
    pub tokens: u32,
}

impl Features {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.width.max(1)
    }
}

/// One sound as log-mel frames.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sound {
    /// Log-mel values, `[rows, mel bands]`: the mel frames of the sound, and the one or two after them that the convolutions of
    /// the encoder read, unless the sound is as long as the model allows.
    pub mel: Vec<f32>,
    /// Mel frames of the sound.
    pub mel_frames: u32,
    /// Offset of its first token in the sequence.
    pub offset: u32,
    /// Number of its tokens in the sequence.
    pub tokens: u32,
}

impl Sound {
    /// Frames in the encoder, which halves the number of mel frames.
    pub fn encoder_frames(&self) -> usize {
        self.mel_frames.div_ceil(2) as usize
    }
}

/// One clip with noise, as flow matching trains it.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// Its tokens along each axis.
    pub grid: ClipGrid,
    /// `(1 - time) noise + time video`, `[tokens, values]`.
    pub state: Vec<f32>,
    /// The velocity to predict, `video - noise`, `[tokens, values]`.
    pub velocity: Vec<f32>,
    /// 0 is noise, 1 is video.
    pub time: f32,
}

/// Tokens of a clip along each axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ClipGrid {
    /// Latent frames.
    pub frames: u32,
    /// Tokens from top to bottom.
    pub rows: u32,
    /// Tokens from left to right.
    pub columns: u32,
}

impl ClipGrid {
    /// Tokens of the whole clip.
    pub fn tokens(&self) -> usize {
        self.frames as usize * self.tokens_per_frame() as usize
    }

    /// Tokens of one frame.
    pub fn tokens_per_frame(&self) -> u32 {
        self.rows * self.columns
    }

    /// Frame, row and column of every token, in order.
    pub fn places(&self) -> impl Iterator<Item = [u32; 3]> {
        let (frame, columns) = (self.tokens_per_frame(), self.columns);
        (0..self.tokens() as u32).map(move |i| [i / frame, i % frame / columns, i % columns])
    }
}

/// Size of a clip and of its caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ClipSize {
    /// Tokens of the clip.
    pub grid: ClipGrid,
    /// Tokens of the caption.
    pub caption_tokens: u32,
}

impl Default for ClipSize {
    fn default() -> Self {
        Self { grid: ClipGrid { frames: 8, rows: 6, columns: 6 }, caption_tokens: 24 }
    }
}

impl Microbatch {
    /// Removes the loss of a document.
    pub fn mute(&mut self, document: u32) {
        for (mask, &of) in self.loss_mask.iter_mut().zip(&self.documents) {
            *mask &= of != document;
        }
    }

    /// Tokens with a loss: the tokens of the clips if there are clips, otherwise the tokens in the loss mask.
    pub fn trained_tokens(&self) -> u64 {
        match self.clips.is_empty() {
            true => self.loss_mask.iter().filter(|&&m| m).count() as u64,
            false => self.clips.iter().map(|clip| clip.grid.tokens() as u64).sum(),
        }
    }

    /// The text tokens of some instances of a decoder: the captions of these clips, or the whole sequence without clips.
    pub fn text_rows(&self, instances: &Range<u32>) -> Range<usize> {
        if self.clips.is_empty() {
            return 0..self.tokens.len();
        }
        let start = |clip: u32| self.documents.partition_point(|&document| document < clip);
        start(instances.start)..start(instances.end)
    }

    /// The tokens of an image: one run, or one for each view of a split picture. Between these runs there is text.
    ///
    /// All tokens of an image have the id of its first.
    pub fn image_runs(&self, image: usize) -> Vec<Range<u32>> {
        let (offset, Image { views, arrangement, tokens, .. }) =
            (self.image_offsets[image], &self.images[image]);
        let runs = match arrangement {
            Arrangement::Split(_) => views.len() as u32,
            _ => 1,
        };
        let (length, id) = (tokens / runs.max(1), self.tokens[offset as usize]);
        let mut next = offset;
        let run = |_| {
            let text = self.tokens[next as usize..].iter().take_while(|&&token| token != id);
            let start = next + text.count() as u32;
            next = start + length;
            start..next
        };
        (0..runs).map(run).collect()
    }

    /// Number of caption tokens of each of some clips.
    pub fn caption_lengths(&self, clips: &Range<u32>) -> Vec<usize> {
        clips.clone().map(|clip| self.text_rows(&(clip..clip + 1)).len()).collect()
    }
}
