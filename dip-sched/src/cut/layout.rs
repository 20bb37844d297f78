//! A partition as the rank of every layer, and the layouts beside it.

use std::ops::Range;

use dip_core::{Chunk, ModulePartition, Partition, RankId, SegmentId};

/// Where every layer is. Layers in a row on one rank are one chunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    pub(super) ranks: u32,
    pub(super) modules: Vec<ModuleLayout>,
}

/// Where the layers of one module are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ModuleLayout {
    pub(super) sub_microbatch: u32,
    /// The rank of every layer.
    rank_of: Vec<RankId>,
}

impl ModuleLayout {
    /// Chunks with their ranks.
    pub(super) fn runs(&self) -> impl Iterator<Item = (Range<u32>, RankId)> {
        let mut start = 0;
        self.rank_of.chunk_by(|a, b| a == b).map(move |run| {
            let range = start..start + run.len() as u32;
            start = range.end;
            (range, run[0])
        })
    }

    fn chunks(&self) -> Vec<Chunk> {
        let mut chunks: Vec<Chunk> = Vec::new();
        for (layers, rank) in self.runs() {
            let before = chunks.iter().filter(|chunk| chunk.rank == rank).count();
            chunks.push(Chunk { rank, segment: SegmentId::from(before), layers });
        }
        chunks
    }
}

impl Layout {
    pub(super) fn of(partition: &Partition) -> Self {
        let module = |module: &ModulePartition| ModuleLayout {
            sub_microbatch: module.sub_microbatch,
            rank_of: module
                .chunks
                .iter()
                .flat_map(|chunk| std::iter::repeat_n(chunk.rank, chunk.layers.len()))
                .collect(),
        };
        Self { ranks: partition.ranks, modules: partition.modules.iter().map(module).collect() }
    }

    pub(super) fn partition(&self) -> Partition {
        let module = |module: &ModuleLayout| ModulePartition {
            sub_microbatch: module.sub_microbatch,
            chunks: module.chunks(),
        };
        Partition { ranks: self.ranks, modules: self.modules.iter().map(module).collect() }
    }

    /// All layouts with the first or last layers of one chunk, or all of them, on another rank; with one module moved on by some
    /// ranks; or with another slice size of one module.
    pub(super) fn neighbours(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for (m, module) in self.modules.iter().enumerate() {
            let with = |change: &dyn Fn(&mut ModuleLayout)| {
                let mut neighbour = self.clone();
                change(&mut neighbour.modules[m]);
                neighbour
            };
            for (layers, own) in module.runs() {
                let (start, end) = (layers.start as usize, layers.end as usize);
                for rank in (0..self.ranks).map(RankId).filter(|&rank| rank != own) {
                    let moved = |part: Range<usize>| with(&|m| m.rank_of[part.clone()].fill(rank));
                    all.extend((start + 1..=end).map(|to| moved(start..to)));
                    all.extend((start + 1..end).map(|from| moved(from..end)));
                }
            }
            for by in 1..self.ranks {
                let next = |rank: &mut RankId| rank.0 = (rank.0 + by) % self.ranks;
                all.push(with(&|m| m.rank_of.iter_mut().for_each(next)));
            }
            let size = module.sub_microbatch;
            for other in [u32::MAX, size.saturating_mul(2), (size / 2).max(1)] {
                if size != u32::MAX && other != size {
                    all.push(with(&|m| m.sub_microbatch = other));
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(ranks: u32, modules: &[&[u32]]) -> Layout {
        let module = |rank_of: &&[u32]| ModuleLayout {
            sub_microbatch: u32::MAX,
            rank_of: rank_of.iter().map(|&rank| RankId(rank)).collect(),
        };
        Layout { ranks, modules: modules.iter().map(module).collect() }
    }

    #[test]
    fn a_layout_is_the_partition_it_was_made_from() {
        let layout = layout(3, &[&[0, 0, 1, 2, 0], &[2, 2], &[1, 0, 1, 0]]);
        let partition = layout.partition();
        assert_eq!(Layout::of(&partition), layout);
        let chunk = |rank, segment, layers| Chunk {
            rank: RankId(rank),
            segment: SegmentId(segment),
            layers,
        };
        let first = [chunk(0, 0, 0..2), chunk(1, 0, 2..3), chunk(2, 0, 3..4), chunk(0, 1, 4..5)];
        assert_eq!(partition.modules[0].chunks, first);
    }

    #[test]
    fn neighbours_differ_and_are_within_reach_of_each_other() {
        let start = layout(2, &[&[0, 0, 1], &[0, 1]]);
        let neighbours = start.neighbours();
        assert!(neighbours.iter().all(|n| *n != start));
        for moved in [
            layout(2, &[&[1, 0, 1], &[0, 1]]),
            layout(2, &[&[0, 1, 1], &[0, 1]]),
            layout(2, &[&[1, 1, 1], &[0, 1]]),
            layout(2, &[&[1, 1, 0], &[0, 1]]),
            layout(2, &[&[0, 0, 1], &[1, 0]]),
        ] {
            assert!(neighbours.contains(&moved), "{moved:?}");
            assert!(moved.neighbours().contains(&start), "{moved:?}");
        }
    }
}
