//! The neighbours of a placement.

use std::ops::Range;

use dip_core::{BatchMeta, InstanceLoads, ModelSpec, ModuleId, RankId};

use super::layer_ranks::{LayerRanks, ModuleRanks};

/// The neighbours of a placement differ by one move: the first, the last or all layers of one chunk go to another rank; all layers of
/// one module move by the same number of ranks; or one module gets another slice size.
pub(super) struct Neighbourhood {
    /// Maximum number of instances of each module in a microbatch, as the size of a sub-microbatch counts them. Larger slices are
    /// whole microbatches.
    max_instances: Vec<u32>,
}

impl Neighbourhood {
    /// The neighbourhood for these batches.
    pub(super) fn new(model: &ModelSpec, batches: &[BatchMeta]) -> Self {
        let microbatches = || batches.iter().flat_map(|batch| &batch.microbatches);
        let max_instances = |m| {
            let instances = |meta| {
                let module = ModuleId::from(m);
                match model.instance_loads(module, meta) {
                    Some(InstanceLoads { own, each }) => {
                        let total = each.iter().fold(0u64, |sum, &load| sum.saturating_add(load));
                        u32::try_from(total.div_ceil(own.max(1))).unwrap_or(u32::MAX)
                    }
                    None => model.instances(module, meta).1,
                }
            };
            microbatches().map(instances).max().unwrap_or(0)
        };
        Self { max_instances: (0..model.modules.len()).map(max_instances).collect() }
    }

    /// Approximate number of neighbours.
    pub(super) fn count(&self, layers: &LayerRanks) -> usize {
        let count: usize = layers.modules.iter().map(|module| module.rank_of.len()).sum();
        2 * count * layers.ranks.saturating_sub(1) as usize
    }

    /// All neighbours.
    pub(super) fn of(&self, layers: &LayerRanks) -> Vec<LayerRanks> {
        let mut all = Vec::new();
        for (m, module) in layers.modules.iter().enumerate() {
            let with = |change: &dyn Fn(&mut ModuleRanks)| {
                let mut neighbour = layers.clone();
                change(&mut neighbour.modules[m]);
                neighbour
            };
            for (run, own) in module.runs() {
                let (start, end) = (run.start as usize, run.end as usize);
                for rank in (0..layers.ranks).map(RankId).filter(|&rank| rank != own) {
                    let moved = |part: Range<usize>| with(&|m| m.rank_of[part.clone()].fill(rank));
                    all.extend((start + 1..=end).map(|to| moved(start..to)));
                    all.extend((start + 1..end).map(|from| moved(from..end)));
                }
            }
            for by in 1..layers.ranks {
                let next = |rank: &mut RankId| rank.0 = (rank.0 + by) % layers.ranks;
                all.push(with(&|m| m.rank_of.iter_mut().for_each(next)));
            }
            let sizes = self.other_sizes(m, module.sub_microbatch);
            all.extend(sizes.into_iter().map(|size| with(&|m| m.sub_microbatch = size)));
        }
        all
    }

    /// Half and twice the slice size, and whole microbatches, as far as they slice microbatches differently.
    fn other_sizes(&self, m: usize, size: u32) -> Vec<u32> {
        let max_instances = self.max_instances[m];
        let whole = |size: u32| if size >= max_instances { u32::MAX } else { size };
        let halves = size.min(max_instances).div_ceil(2).max(1);
        let mut sizes = vec![whole(halves), whole(size.saturating_mul(2)), u32::MAX];
        sizes.dedup();
        sizes.retain(|&other| other != whole(size));
        sizes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::layer_ranks::tests::layout;
    use super::*;

    #[test]
    fn neighbours_differ_and_are_neighbours_of_each_other() {
        let moves = Neighbourhood { max_instances: vec![1, 8] };
        let start = layout(2, &[&[0, 0, 1], &[0, 1]]);
        let neighbours = moves.of(&start);
        let different: HashSet<&LayerRanks> = neighbours.iter().collect();
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
            assert!(moves.of(&moved).contains(&start), "{moved:?}");
        }
    }

    #[test]
    fn other_sizes_slice_microbatches_differently() {
        let sizes = |max_instances, size| {
            Neighbourhood { max_instances: vec![max_instances] }.other_sizes(0, size)
        };
        assert_eq!(sizes(8, u32::MAX), [4]);
        assert_eq!(sizes(8, 9), [4], "slices of nine hold all eight");
        assert_eq!(sizes(8, 4), [2, u32::MAX]);
        assert_eq!(sizes(8, 2), [1, 4, u32::MAX]);
        assert_eq!(sizes(8, 1), [2, u32::MAX]);
        for size in [1, 2, u32::MAX] {
            assert!(sizes(1, size).is_empty(), "one instance has no slices");
            assert!(sizes(0, size).is_empty());
        }
    }
}
