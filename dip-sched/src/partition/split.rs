//! The online part of the partitioner: it splits a batch into sub-microbatches.

use std::ops::Range;

use dip_core::{BatchMeta, BatchSplit, MicrobatchMeta, ModelSpec, ModuleId, Partition};

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
    uniform(instances, sub_microbatch)
}

/// Splits `0..n` into `ceil(n / max_len)` ranges whose lengths differ by at most one.
fn uniform(n: u32, max_len: u32) -> Vec<Range<u32>> {
    let count = u64::from(n.div_ceil(max_len.max(1)));
    let at = |i: u64| (u64::from(n) * i / count) as u32;
    (0..count).map(|i| at(i)..at(i + 1)).collect()
}

#[cfg(test)]
mod tests {
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
}
