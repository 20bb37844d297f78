//! Where layers live and how a batch is cut: the output of the modality-aware partitioner (paper section 1).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::ids::{ModuleId, RankId, SegmentId};

/// The static placement of a model on pipeline ranks. It does not change during training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Pipeline ranks `P`.
    pub ranks: u32,
    /// One entry a module, in the order of [`ModelSpec::modules`](crate::ModelSpec::modules).
    pub modules: Vec<ModulePartition>,
}

/// How one module is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModulePartition {
    /// Instances of one sub-microbatch, `B_i`.
    pub sub_microbatch: u32,
    /// Model chunks in the order of their layers. Ranks are arbitrary; the paper's rule puts chunk `j` on rank `j mod P`.
    pub chunks: Vec<Chunk>,
}

/// Consecutive layers of one module on one rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The rank that holds it.
    pub rank: RankId,
    /// The pipeline segment it belongs to; (rank, segment) is unique in a module.
    pub segment: SegmentId,
    /// Its layers. Chunks of a module cover `0..layers` without gap or overlap; every chunk has at least one.
    pub layers: Range<u32>,
}

/// How one batch is cut: `slices[microbatch][module]` are the instance ranges of the sub-microbatches of that module.
/// A module that a microbatch does not use has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSplit {
    /// `[microbatch][module][sub_microbatch]`.
    pub slices: Vec<Vec<Vec<Range<u32>>>>,
}

impl Partition {
    /// The partition of one module.
    pub fn module(&self, module: ModuleId) -> &ModulePartition {
        &self.modules[module.index()]
    }

    /// Number of pipeline segments of a module, `K_i`.
    pub fn segments(&self, module: ModuleId) -> u32 {
        let chunks = &self.module(module).chunks;
        chunks.iter().map(|c| c.segment.0 + 1).max().unwrap_or(0)
    }
}
