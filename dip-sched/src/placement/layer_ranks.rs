//! A partition as the rank of every layer.

use std::ops::Range;

use dip_core::{Chunk, ModulePartition, Partition, RankId, SegmentId};

/// The rank of every layer. Consecutive layers on one rank are one chunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LayerRanks {
    pub(super) ranks: u32,
    pub(super) modules: Vec<ModuleRanks>,
}

/// The rank of every layer of one module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ModuleRanks {
    pub(super) sub_microbatch: u32,
    pub(super) rank_of: Vec<RankId>,
}

impl ModuleRanks {
    /// The layers and the rank of every chunk.
    pub(super) fn runs(&self) -> impl Iterator<Item = (Range<u32>, RankId)> {
        let mut start = 0;
        self.rank_of.chunk_by(|a, b| a == b).map(move |run| {
            let range = start..start + run.len() as u32;
            start = range.end;
            (range, run[0])
        })
    }

    /// The chunks with their segments. A segment ends before the second chunk on one rank.
    fn chunks(&self) -> Vec<Chunk> {
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut segment = SegmentId(0);
        for (layers, rank) in self.runs() {
            let current = chunks.iter().rev().take_while(|chunk| chunk.segment == segment);
            if current.map(|chunk| chunk.rank).any(|r| r == rank) {
                segment.0 += 1;
            }
            chunks.push(Chunk { rank, segment, layers });
        }
        chunks
    }
}

impl LayerRanks {
    /// The ranks of a partition.
    pub(super) fn of(partition: &Partition) -> Self {
        let module = |module: &ModulePartition| ModuleRanks {
            sub_microbatch: module.sub_microbatch,
            rank_of: module
                .chunks
                .iter()
                .flat_map(|chunk| std::iter::repeat_n(chunk.rank, chunk.layers.len()))
                .collect(),
        };
        Self { ranks: partition.ranks, modules: partition.modules.iter().map(module).collect() }
    }

    /// The partition with these ranks.
    pub(super) fn partition(&self) -> Partition {
        let module = |module: &ModuleRanks| ModulePartition {
            sub_microbatch: module.sub_microbatch,
            chunks: module.chunks(),
        };
        Partition { ranks: self.ranks, modules: self.modules.iter().map(module).collect() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::placement) fn layout(ranks: u32, modules: &[&[u32]]) -> LayerRanks {
        let module = |rank_of: &&[u32]| ModuleRanks {
            sub_microbatch: u32::MAX,
            rank_of: rank_of.iter().map(|&rank| RankId(rank)).collect(),
        };
        LayerRanks { ranks, modules: modules.iter().map(module).collect() }
    }

    #[test]
    fn the_ranks_of_a_partition_give_the_partition() {
        let layout = layout(3, &[&[0, 0, 1, 2, 0], &[2, 2], &[1, 0, 1, 0], &[0, 1, 0, 2]]);
        let partition = layout.partition();
        assert_eq!(LayerRanks::of(&partition), layout);
        let chunk = |rank, segment, layers| Chunk {
            rank: RankId(rank),
            segment: SegmentId(segment),
            layers,
        };
        let first = [chunk(0, 0, 0..2), chunk(1, 0, 2..3), chunk(2, 0, 3..4), chunk(0, 1, 4..5)];
        assert_eq!(partition.modules[0].chunks, first);
        let segments = |m: usize| partition.modules[m].chunks.iter().map(|c| c.segment.0);
        assert_eq!(segments(2).collect::<Vec<_>>(), [0, 0, 1, 1]);
        assert_eq!(
            segments(3).collect::<Vec<_>>(),
            [0, 0, 1, 1],
            "no chunk before one of its inputs"
        );
    }
}
