//! A partition as the rank of every layer, and the layouts beside it.

use std::ops::Range;

use dip_core::{
    BatchMeta, Chunk, ModelSpec, ModuleId, ModulePartition, Partition, RankId, SegmentId,
};

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

    /// Chunks by segments, which are runs of chunks on different ranks.
    fn chunks(&self) -> Vec<Chunk> {
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut segment = SegmentId(0);
        for (layers, rank) in self.runs() {
            let begun = chunks.iter().rev().take_while(|chunk| chunk.segment == segment);
            if begun.map(|chunk| chunk.rank).any(|r| r == rank) {
                segment.0 += 1;
            }
            chunks.push(Chunk { rank, segment, layers });
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
}

/// What may change in a layout at once: the first or last layers of one chunk, or all of them, go to another rank; one module moves on
/// by some ranks; or one module has another slice size.
pub(super) struct Moves {
    /// Most instances of each module in a microbatch: larger slices are whole microbatches.
    most: Vec<u32>,
}

impl Moves {
    pub(super) fn new(model: &ModelSpec, batches: &[BatchMeta]) -> Self {
        let microbatches = || batches.iter().flat_map(|batch| &batch.microbatches);
        let most = |m| {
            let instances = microbatches().map(|meta| model.instances(ModuleId::from(m), meta).1);
            instances.max().unwrap_or(0)
        };
        Self { most: (0..model.modules.len()).map(most).collect() }
    }

    /// About how many layouts are one move away.
    pub(super) fn count(&self, layout: &Layout) -> usize {
        let layers: usize = layout.modules.iter().map(|module| module.rank_of.len()).sum();
        2 * layers * layout.ranks.saturating_sub(1) as usize
    }

    /// All layouts that are one move away.
    pub(super) fn from(&self, layout: &Layout) -> Vec<Layout> {
        let mut all = Vec::new();
        for (m, module) in layout.modules.iter().enumerate() {
            let with = |change: &dyn Fn(&mut ModuleLayout)| {
                let mut neighbour = layout.clone();
                change(&mut neighbour.modules[m]);
                neighbour
            };
            for (layers, own) in module.runs() {
                let (start, end) = (layers.start as usize, layers.end as usize);
                for rank in (0..layout.ranks).map(RankId).filter(|&rank| rank != own) {
                    let moved = |part: Range<usize>| with(&|m| m.rank_of[part.clone()].fill(rank));
                    all.extend((start + 1..=end).map(|to| moved(start..to)));
                    all.extend((start + 1..end).map(|from| moved(from..end)));
                }
            }
            for by in 1..layout.ranks {
                let next = |rank: &mut RankId| rank.0 = (rank.0 + by) % layout.ranks;
                all.push(with(&|m| m.rank_of.iter_mut().for_each(next)));
            }
            let sizes = self.other_sizes(m, module.sub_microbatch);
            all.extend(sizes.into_iter().map(|size| with(&|m| m.sub_microbatch = size)));
        }
        all
    }

    /// Half and twice the size of slices, as far as they cut microbatches otherwise.
    fn other_sizes(&self, m: usize, size: u32) -> Vec<u32> {
        let most = self.most[m];
        let whole = |size: u32| if size >= most { u32::MAX } else { size };
        let halves = size.min(most).div_ceil(2).max(1);
        let mut sizes = vec![whole(halves), whole(size.saturating_mul(2)), u32::MAX];
        sizes.dedup();
        sizes.retain(|&other| other != whole(size));
        sizes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

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
        let layout = layout(3, &[&[0, 0, 1, 2, 0], &[2, 2], &[1, 0, 1, 0], &[0, 1, 0, 2]]);
        let partition = layout.partition();
        assert_eq!(Layout::of(&partition), layout);
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

    #[test]
    fn neighbours_differ_and_are_within_reach_of_each_other() {
        let moves = Moves { most: vec![1, 8] };
        let start = layout(2, &[&[0, 0, 1], &[0, 1]]);
        let neighbours = moves.from(&start);
        let different: HashSet<&Layout> = neighbours.iter().collect();
        assert!(different.len() == neighbours.len() && !different.contains(&start));
        assert!(moves.count(&start) <= neighbours.len() + start.modules.len());
        let mut halves = start.clone();
        halves.modules[1].sub_microbatch = 4;
        for moved in [
            layout(2, &[&[1, 0, 1], &[0, 1]]),
            layout(2, &[&[0, 1, 1], &[0, 1]]),
            layout(2, &[&[1, 1, 1], &[0, 1]]),
            layout(2, &[&[1, 1, 0], &[0, 1]]),
            layout(2, &[&[0, 0, 1], &[1, 0]]),
            halves,
        ] {
            assert!(neighbours.contains(&moved), "{moved:?}");
            assert!(moves.from(&moved).contains(&start), "{moved:?}");
        }
    }

    #[test]
    fn slices_of_other_sizes_cut_microbatches_otherwise() {
        let sizes = |most, size| Moves { most: vec![most] }.other_sizes(0, size);
        assert_eq!(sizes(8, u32::MAX), [4]);
        assert_eq!(sizes(8, 9), [4], "nine are all of eight");
        assert_eq!(sizes(8, 4), [2, u32::MAX]);
        assert_eq!(sizes(8, 2), [1, 4, u32::MAX]);
        assert_eq!(sizes(8, 1), [2, u32::MAX]);
        for size in [1, 2, u32::MAX] {
            assert!(sizes(1, size).is_empty(), "one instance has no slices");
            assert!(sizes(0, size).is_empty());
        }
    }
}
