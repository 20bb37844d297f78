//! A batch as the stages see it: plain numbers, no tensors. Every rank reads the same one.

use dip_core::BatchSplit;

/// One iteration's microbatches, how they are cut, and what the loss is normalised by.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The microbatches.
    pub microbatches: Vec<Microbatch>,
    /// The instances of every sub-microbatch of every module.
    pub split: BatchSplit,
    /// Tokens with a loss in the whole batch: the loss does not depend on how the batch is cut.
    pub trained_tokens: u64,
}

/// One packed sequence of `T` tokens and its images.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Microbatch {
    /// Token ids, `[T]`.
    pub tokens: Vec<u32>,
    /// The document of each token, `[T]`; attention stays inside a document. Padding has an id of its own.
    pub documents: Vec<u32>,
    /// Position of each token in its document, `[T]`.
    pub positions: Vec<u32>,
    /// The token to predict at each position, `[T]`.
    pub targets: Vec<u32>,
    /// Whether that prediction is trained, `[T]`.
    pub loss_mask: Vec<bool>,
    /// The images, in the order of the sequence.
    pub images: Vec<Image>,
    /// Where the tokens of each image start, `[images]`.
    pub image_offsets: Vec<u32>,
}

/// One decoded image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Values from -1 to 1, `[3, image_px, image_px]`.
    pub pixels: Vec<f32>,
}

impl Microbatch {
    /// Tokens that have a loss.
    pub fn trained_tokens(&self) -> u64 {
        self.loss_mask.iter().filter(|&&m| m).count() as u64
    }
}
