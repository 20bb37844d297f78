//! The saved position of a loader.

use serde::{Deserialize, Serialize};

use super::TooLong;
use crate::data::skip::SkipCounts;
use crate::data::source::SourcePosition;

/// The position of a [`Loader`](super::Loader). A restored loader gives byte-identical batches from there on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderPosition {
    /// Batches before the position.
    pub batches: u64,
    /// Batches before the position of those that were packed together; their documents are read again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) given: u64,
    /// The position of the source before the document `first`.
    pub(super) source: SourcePosition,
    /// Number of the next document of `source`.
    pub(super) first: u64,
    /// Documents taken from the source.
    pub(super) taken: u64,
    /// Numbers of the documents that wait to be packed.
    pub(super) waiting: Vec<u64>,
    pub(super) counts: Counts,
    pub(super) shape: BatchShape,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Counts {
    pub truncated_documents: u64,
    pub truncated_tokens: u64,
    pub skipped: SkipCounts,
}

/// True for the usual value.
fn is_zero(given: &u64) -> bool {
    *given == 0
}

/// The settings that batches depend on, except the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchShape {
    pub sequence_tokens: u32,
    pub max_images: u32,
    /// Most patches of a sequence, if images have different sizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_patches: Option<u64>,
    /// Tokens of every image; 0 if they differ.
    pub tokens_per_image: u32,
    pub lookahead: usize,
    pub microbatches: u32,
    /// The token budget of a batch, if it replaces `microbatches`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Batches that are packed together, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches_ahead: Option<u32>,
    /// The packing rule, if it is not the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packing: Option<String>,
    /// What happens to long documents, if they are not cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub too_long: Option<TooLong>,
    pub vocab: u32,
    /// The fingerprint of the processor of pictures and sounds; absent in positions of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<u64>,
}

impl BatchShape {
    /// Why batches of `saved` differ from batches of this shape; `None` if they do not.
    pub fn difference(&self, saved: &Self) -> Option<&'static str> {
        let processor = saved.processor.and(self.processor);
        if *saved != (Self { processor: saved.processor, ..self.clone() }) {
            return Some(
                "its sequence length, images, microbatches, packing or tokenizer are different",
            );
        }
        (processor.is_some() && saved.processor != self.processor).then_some(
            "its processor of pictures, videos or sounds is different, such as the size or the colours of pictures",
        )
    }
}
