//! The online part of the partitioner: it splits a batch into sub-microbatches.

use std::ops::Range;

use dip_core::{
    BatchMeta, BatchSplit, InstanceLoads, MicrobatchMeta, ModelSpec, ModuleId, Partition,
};

/// Splits every microbatch into `M_i = ceil(N_i / B_i)` slices for each module, as equal as possible.
pub fn split_batch(model: &ModelSpec, partition: &Partition, batch: &BatchMeta) -> BatchSplit {
    let of_module = |meta: &MicrobatchMeta, module: ModuleId| {
        slices(model, module, partition.module(module).sub_microbatch, meta)
    };
    let modules = || (0..model.modules.len()).map(ModuleId::from);
    let of_microbatch = |meta| modules().map(|module| of_module(meta, module)).collect();
    BatchSplit { slices: batch.microbatches.iter().map(of_microbatch).collect() }
}

/// The slices of one microbatch for one module.
pub(crate) fn slices(
    model: &ModelSpec,
    module: ModuleId,
    sub_microbatch: u32,
    meta: &MicrobatchMeta,
) -> Vec<Range<u32>> {
    let (_, instances) = model.instances(module, meta);
    match model.instance_loads(module, meta) {
        Some(InstanceLoads { own, each }) => {
            by_load(&each, u64::from(sub_microbatch).saturating_mul(own))
        }
        None => uniform(instances, sub_microbatch),
    }
}

/// The number of first instances of a microbatch that fit into one sub-microbatch, at least one.
pub(super) fn first_slice(
    model: &ModelSpec,
    module: ModuleId,
    sub_microbatch: u32,
    meta: &MicrobatchMeta,
) -> u32 {
    let (_, instances) = model.instances(module, meta);
    let Some(InstanceLoads { own, each }) = model.instance_loads(module, meta) else {
        return sub_microbatch.min(instances);
    };
    let size = u64::from(sub_microbatch).saturating_mul(own);
    let mut total = 0;
    let fits = |load: &&u64| {
        total += **load;
        total <= size
    };
    (each.iter().take_while(fits).count() as u32).clamp(instances.min(1), instances)
}

/// Splits `0..n` into `ceil(n / max_len)` ranges whose lengths differ by at most one.
fn uniform(n: u32, max_len: u32) -> Vec<Range<u32>> {
    let count = u64::from(n.div_ceil(max_len.max(1)));
    let at = |i: u64| (u64::from(n) * i / count) as u32;
    (0..count).map(|i| at(i)..at(i + 1)).collect()
}

/// Splits instances into `ceil(total load / size)` ranges. The heaviest range is as light as possible; within that, every range
/// ends where its share of the load ends. Instances of equal load give the ranges of [`uniform`].
fn by_load(loads: &[u64], size: u64) -> Vec<Range<u32>> {
    let ends: Vec<u64> = loads
        .iter()
        .scan(0u64, |total, &load| {
            *total = total.saturating_add(load);
            Some(*total)
        })
        .collect();
    let Some(&total) = ends.last() else { return Vec::new() };
    let count = total.div_ceil(size.max(1)).clamp(1, loads.len() as u64) as usize;
    let most = lightest_bound(loads, total, count);
    // The first end of each range at which the rest still fits into the ranges after it.
    let mut earliest = vec![loads.len(); count + 1];
    for i in (0..count).rev() {
        let (mut at, mut load) = (earliest[i + 1], 0);
        while at > i && load + loads[at - 1] <= most {
            load += loads[at - 1];
            at -= 1;
        }
        earliest[i] = at;
    }
    let mut ranges = Vec::with_capacity(count);
    let mut start = 0;
    for (i, &earliest) in earliest.iter().enumerate().skip(1) {
        let before = if start == 0 { 0 } else { ends[start - 1] };
        // The last end at which this range is not too heavy and leaves one instance for each range after it.
        let latest = ends
            .partition_point(|&end| end <= before.saturating_add(most))
            .min(loads.len() - (count - i));
        let share = u128::from(total) * i as u128;
        let ideal = ends.partition_point(|&end| u128::from(end) * count as u128 <= share);
        let end = ideal.clamp(earliest.max(start + 1).min(latest), latest);
        ranges.push(start as u32..end as u32);
        start = end;
    }
    ranges
}

/// The least load that no range exceeds when `loads` are split into at most `count` ranges.
fn lightest_bound(loads: &[u64], total: u64, count: usize) -> u64 {
    let heaviest = loads.iter().copied().max().unwrap_or(0);
    let (mut low, mut high) = (heaviest.max(total.div_ceil(count as u64)), total);
    while low < high {
        let middle = low + (high - low) / 2;
        if ranges_within(loads, middle) <= count { high = middle } else { low = middle + 1 }
    }
    low
}

/// The fewest ranges of at most `most`, which no single load exceeds.
fn ranges_within(loads: &[u64], most: u64) -> usize {
    let (mut count, mut filled) = (1, 0u64);
    for &load in loads {
        if filled.saturating_add(load) > most {
            (count, filled) = (count + 1, 0);
        }
        filled += load;
    }
    count
}

#[cfg(test)]
mod tests {
    use dip_core::ImageSize;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slices_cover_all_instances_and_differ_by_at_most_one() {
        assert_eq!(uniform(10, 4), vec![0..3, 3..6, 6..10]);
        assert_eq!(uniform(0, 4), Vec::<Range<u32>>::new());
        assert_eq!(uniform(1, u32::MAX), vec![0..1]);
        for (n, max_len) in [(1, 1), (48, 12), (47, 12), (49, 12), (7, 8)] {
            let slices = uniform(n, max_len);
            assert_eq!(slices.len() as u32, n.div_ceil(max_len));
            assert!(slices.iter().all(|s| s.len() as u32 <= max_len && !s.is_empty()));
            assert_eq!(slices.last().map(|s| s.end), Some(n));
        }
    }

    /// The lightest heaviest range of all splits into exactly `count` ranges.
    fn best(loads: &[u64], count: usize) -> u64 {
        let mut best = vec![vec![u64::MAX; loads.len() + 1]; count + 1];
        best[0][0] = 0;
        for i in 1..=count {
            for end in i..=loads.len() {
                for start in i - 1..end {
                    let heaviest = best[i - 1][start].max(loads[start..end].iter().sum());
                    best[i][end] = best[i][end].min(heaviest);
                }
            }
        }
        best[count][loads.len()]
    }

    proptest! {
        #[test]
        fn slices_by_load_cover_all_instances_and_are_as_balanced_as_possible(
            loads in proptest::collection::vec(1u64..200, 1..14),
            size in 1u64..600,
        ) {
            let slices = by_load(&loads, size);
            let mut covered = 0;
            for slice in &slices {
                prop_assert!(slice.start == covered && !slice.is_empty());
                covered = slice.end;
            }
            prop_assert_eq!(covered as usize, loads.len());
            let total: u64 = loads.iter().sum();
            prop_assert_eq!(slices.len() as u64, total.div_ceil(size).min(loads.len() as u64));
            let of = |s: &Range<u32>| loads[s.start as usize..s.end as usize].iter().sum::<u64>();
            let heaviest = slices.iter().map(of).max().unwrap();
            prop_assert_eq!(heaviest, best(&loads, slices.len()));
        }

        #[test]
        fn equal_loads_are_split_like_instances(n in 1u32..100, size in 1u32..40, load in 1u64..50) {
            let loads = vec![load; n as usize];
            prop_assert_eq!(by_load(&loads, load * u64::from(size)), uniform(n, size));
        }
    }

    #[test]
    fn the_first_slice_has_the_instances_that_fit() {
        let model = dip_core::presets::model("vlm-tiny").unwrap();
        let size = |patches| ImageSize { patches, tokens: patches / 4, views: 1 };
        let images = vec![size(32), size(96), size(16), size(640)].into();
        let meta = MicrobatchMeta { images, ..MicrobatchMeta::default() };
        let first = |sub_microbatch, meta| first_slice(&model, ModuleId(0), sub_microbatch, meta);
        // An image of the preset has 64 patches.
        assert_eq!([1, 2, 3, 99].map(|size| first(size, &meta)), [1, 2, 3, 4]);
        let counted = MicrobatchMeta { images: 5.into(), ..MicrobatchMeta::default() };
        assert_eq!([1, 3, 9].map(|size| first(size, &counted)), [1, 3, 5]);
        assert_eq!(first(3, &MicrobatchMeta::default()), 0);
    }
}
