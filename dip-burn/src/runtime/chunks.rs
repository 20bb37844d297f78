//! The chunks of one rank.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use dip_core::SegmentId;

use super::collective::Layout;
use crate::stage::ChunkStage;

/// The chunks of one rank, by module name and segment.
pub(super) type Chunks<B> = BTreeMap<(String, SegmentId), ChunkStage<B>>;

/// The buckets of a rank: for each chunk a bucket of gradients, then a bucket of parameters. They are the same on all replicas.
pub(super) fn layout_of<B: Backend>(chunks: &Chunks<B>) -> Layout {
    let both = |chunk: &ChunkStage<B>| {
        let lengths = chunk.flat_lengths();
        [lengths.clone(), lengths]
    };
    chunks.values().flat_map(both).collect()
}

/// The bucket of a chunk's gradients.
pub(super) fn gradient_bucket(chunk: usize) -> usize {
    2 * chunk
}

/// The bucket of a chunk's parameters.
pub(super) fn parameter_bucket(chunk: usize) -> usize {
    2 * chunk + 1
}
