//! A batch of clips and the position after it.

use dip_core::BatchMeta;
use serde::{Deserialize, Serialize};

use crate::batch::Microbatch;
use crate::data::skip::SkipCounts;
use crate::data::source::SourcePosition;

/// A batch of clips.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipBatch {
    /// Metadata for the planner; its iteration is the number of the batch, from 0.
    pub meta: BatchMeta,
    /// The microbatches.
    pub microbatches: Vec<Microbatch>,
    /// The position after the batch.
    pub position: ClipPosition,
    /// Videos skipped since the beginning of the data.
    pub skipped: SkipCounts,
}

/// The position of a [`ClipLoader`](super::ClipLoader).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipPosition {
    /// Batches before the position.
    pub batches: u64,
    /// Clips before the position.
    pub(super) clips: u64,
    pub(super) source: SourcePosition,
    /// Videos that the loader skipped itself.
    pub(super) skipped: SkipCounts,
}
