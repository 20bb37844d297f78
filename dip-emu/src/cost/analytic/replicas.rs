//! What the replicas of a rank send each other, and the optimiser step.

use dip_core::{Bytes, ChunkQuery, Seconds};

use super::{AnalyticCost, GRADIENT_BYTES};

/// How the replicas of a run share the optimiser and sum their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// Each replica holds and updates its share of the optimiser state, then gathers the weights of the others (ZeRO-1).
    /// Otherwise each holds all of it, and gradients are summed to all.
    pub sharded: bool,
    /// When gradients are summed.
    pub overlap: GradientOverlap,
    /// Bytes of a gradient on its way: 4 in single precision, 2 if a framework sends half precision.
    pub gradient_bytes: u32,
}

/// When the replicas of a rank sum their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GradientOverlap {
    /// All after the pipeline.
    None,
    /// Those of a chunk as soon as its last backward has ended, while the pipeline runs on, as the trainer of dip does.
    #[default]
    Chunks,
    /// Those of a layer as soon as its last backward has ended, as frameworks with buckets do.
    Layers,
}

impl Default for Replicas {
    /// Sharded, overlapped by chunks, in single precision.
    fn default() -> Self {
        Self { sharded: true, overlap: GradientOverlap::Chunks, gradient_bytes: 4 }
    }
}

impl AnalyticCost {
    /// The time in which the replicas of a rank sum the gradients of a chunk: a scatter of sums, and, unless the optimiser is
    /// sharded, a gather of them. Zero for a single replica and for frozen chunks.
    pub fn reduction(&self, chunk: &ChunkQuery<'_>) -> Seconds {
        let scatter = self.ring(chunk, self.replicas.gradient_bytes.into());
        if self.replicas.sharded { scatter } else { scatter * 2.0 }
    }

    /// The time in which the replicas of a rank gather the new weights of a chunk (ZeRO-1). Zero for a single replica, for frozen
    /// chunks, and if the optimiser is not sharded.
    pub fn gather(&self, chunk: &ChunkQuery<'_>) -> Seconds {
        let gather = self.ring(chunk, self.layout.element_bytes.into());
        if self.replicas.sharded { gather } else { Seconds::ZERO }
    }

    /// One pass of the weights of a chunk around the ring of its replicas.
    fn ring(&self, chunk: &ChunkQuery<'_>, bytes_per_weight: u64) -> Seconds {
        let parallel = self.model.parallel;
        if parallel.data <= 1 || !chunk.trainable {
            return Seconds::ZERO;
        }
        let weights = chunk.parameters().div_ceil(parallel.tensor.into());
        let sent = weights - weights / u64::from(parallel.data);
        let bytes = Bytes(sent.saturating_mul(bytes_per_weight));
        self.machine.ring(parallel.tensor, parallel.data, bytes)
    }

    /// Bytes of optimiser state per weight: the master weight, if weights are in half precision, and two moments.
    pub(super) fn state_bytes(&self) -> u64 {
        if self.layout.element_bytes < 4 { 12 } else { 8 }
    }

    /// The number of replicas that share the optimiser state.
    pub(super) fn shards(&self) -> u64 {
        if self.replicas.sharded { self.model.parallel.data.into() } else { 1 }
    }

    /// The optimiser step on a device's share of a chunk: the state is read and written, the gradient read, the weight written.
    pub(super) fn update_of(&self, chunk: &ChunkQuery<'_>) -> Seconds {
        if !chunk.trainable {
            return Seconds::ZERO;
        }
        let weights = chunk.parameters().div_ceil(self.layout.tensor.into());
        let moved = 2 * self.state_bytes() + GRADIENT_BYTES + u64::from(self.layout.element_bytes);
        self.machine.streamed(Bytes(weights.div_ceil(self.shards()).saturating_mul(moved)))
    }
}
