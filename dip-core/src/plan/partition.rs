//! The placement of layers on ranks and the split of a batch: the output of the modality-aware partitioner (paper section 1).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::cost::ChunkQuery;
use crate::spec::{ModelSpec, ModuleId, ModuleSpec, RankId, SegmentId};

/// The static placement of a model on pipeline ranks. It does not change during training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Number of pipeline ranks, `P`.
    pub ranks: u32,
    /// One entry per module, in the order of [`ModelSpec::modules`](crate::ModelSpec::modules).
    pub modules: Vec<ModulePartition>,
}

/// How the layers of a model are placed on ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Separate chunks for every module, each module on its own [`Route`] (paper section 1).
    ModalityAware,
    /// Contiguous runs over the layers of all modules, as in the baselines.
    Contiguous {
        /// Runs on each rank.
        runs_per_rank: u32,
        /// The way of the runs through the ranks.
        route: Route,
    },
}

/// The way of a module's segments through the ranks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Every segment begins at rank 0: chunk `j` is on rank `j mod P` (paper section 1).
    #[default]
    Loop,
    /// Every second segment runs back from the last rank to rank 0, so that its first chunk is on the rank of the chunk before. The
    /// turns send nothing, and ranks hold activations for more equal times.
    Wave,
}

impl Route {
    /// Both routes.
    pub const ALL: [Self; 2] = [Self::Loop, Self::Wave];

    /// The rank of chunk `chunk` on `ranks` ranks.
    pub fn rank(self, chunk: usize, ranks: usize) -> usize {
        let (segment, place) = (chunk / ranks, chunk % ranks);
        match self {
            Self::Wave if segment % 2 == 1 => ranks - 1 - place,
            Self::Loop | Self::Wave => place,
        }
    }
}

/// The chunks and sub-microbatches of one module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModulePartition {
    /// Number of instances in one sub-microbatch, `B_i`. Images of known sizes count by their patches: this many images of the
    /// model's own size.
    pub sub_microbatch: u32,
    /// Model chunks in the order of their layers. A chunk may be on any rank; a [`Route`] is the usual rule.
    pub chunks: Vec<Chunk>,
}

/// Consecutive layers of one module on one rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The rank that holds it.
    pub rank: RankId,
    /// Its pipeline segment. The pair (rank, segment) is unique in a module.
    pub segment: SegmentId,
    /// Its layers, at least one. The chunks of a module cover `0..layers` without gap or overlap.
    pub layers: Range<u32>,
}

/// The split of one batch: `slices[microbatch][module]` lists the instance ranges of the sub-microbatches of the module.
/// The list is empty if the microbatch does not use the module.
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

    /// Every chunk as a cost model sees it, with its rank. The partition must belong to `model`.
    pub fn queries<'a>(
        &'a self,
        model: &'a ModelSpec,
    ) -> impl Iterator<Item = (RankId, ChunkQuery<'a>)> {
        let of_module = move |(m, module): (usize, &'a ModulePartition)| {
            let query = ChunkQuery::new(model, ModuleId::from(m), 0..0);
            let of =
                move |c: &Chunk| (c.rank, ChunkQuery { layers: c.layers.clone(), ..query.clone() });
            module.chunks.iter().map(of)
        };
        self.modules.iter().enumerate().flat_map(of_module)
    }

    /// Describes the layers of every module and their ranks in one line.
    ///
    /// ```
    /// # use dip_core::*;
    /// let model = presets::model("vlm-tiny").unwrap();
    /// let on = |rank, layers| Chunk { rank: RankId(rank), segment: SegmentId(0), layers };
    /// let module = |chunks| ModulePartition { sub_microbatch: 4, chunks };
    /// let modules = vec![module(vec![on(0, 0..4)]), module(vec![on(0, 0..1), on(1, 1..4)])];
    /// let text = Partition { ranks: 2, modules }.describe(&model);
    /// assert_eq!(text, "vision 0-3 on rank 0; language 0 on rank 0, 1-3 on rank 1");
    /// ```
    pub fn describe(&self, model: &ModelSpec) -> String {
        let chunk = |chunk: &Chunk| match (chunk.layers.start, chunk.layers.end.saturating_sub(1)) {
            (first, last) if first < last => format!("{first}-{last} on rank {}", chunk.rank),
            (only, _) => format!("{only} on rank {}", chunk.rank),
        };
        let module = |(spec, module): (&ModuleSpec, &ModulePartition)| {
            let chunks: Vec<String> = module.chunks.iter().map(chunk).collect();
            format!("{} {}", spec.name, chunks.join(", "))
        };
        let modules: Vec<String> = model.modules.iter().zip(&self.modules).map(module).collect();
        modules.join("; ")
    }

    /// Number of pipeline segments of a module, `K_i`.
    pub fn segments(&self, module: ModuleId) -> u32 {
        let chunks = &self.module(module).chunks;
        chunks.iter().map(|c| c.segment.0 + 1).max().unwrap_or(0)
    }
}
