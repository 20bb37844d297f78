//! `B_i`, the sub-microbatch size of a module, and `K_i`, its number of segments.

use dip_core::{MicrobatchMeta, ModuleId};

use super::layer_times::layer_times;
use super::{PartitionError, Partitioner};

/// The share of the best efficiency that a sub-microbatch must reach.
const EFFICIENCY: f64 = 0.95;
/// Every size up to this is measured; beyond it, steps grow.
const MEASURED_SINGLY: u32 = 64;

/// `B_i` of every module: the smallest size with at least 95 % of the best instances per second.
pub(super) fn sub_microbatches(partitioner: &Partitioner<'_>) -> Result<Vec<u32>, PartitionError> {
    let full = partitioner.model.filled(1.0);
    (0..partitioner.model.modules.len())
        .map(ModuleId::from)
        .map(|module| match partitioner.sub_microbatch.get(&module) {
            Some(&size) => Ok(size),
            None => sub_microbatch(partitioner, module, &full),
        })
        .collect()
}

fn sub_microbatch(
    partitioner: &Partitioner<'_>,
    module: ModuleId,
    full: &MicrobatchMeta,
) -> Result<u32, PartitionError> {
    let (_, instances) = partitioner.model.instances(module, full);
    let mut measured = Vec::new();
    let mut size = 1;
    while size <= instances {
        let seconds = layer_times(partitioner, module, full, size)?.total();
        let efficiency = if seconds > 0.0 { f64::from(size) / seconds } else { f64::INFINITY };
        measured.push((size, efficiency));
        size += 1 + size / MEASURED_SINGLY;
    }
    let best = measured.iter().map(|m| m.1).fold(0.0, f64::max);
    let enough = measured.iter().find(|m| m.1 >= EFFICIENCY * best);
    Ok(enough.map_or(1, |m| m.0))
}

/// `K_i` of every module: the segment factor times `floor(T_i / T_1)`, as far as layers allow. `T_i` is the latency of a module at
/// `B_i`, `T_1` the least of them.
pub(super) fn segments(
    partitioner: &Partitioner<'_>,
    sizes: &[u32],
) -> Result<Vec<u32>, PartitionError> {
    let full = partitioner.model.filled(1.0);
    let mut latency = Vec::new();
    for (i, &size) in sizes.iter().enumerate() {
        let module = ModuleId::from(i);
        let (_, instances) = partitioner.model.instances(module, &full);
        latency.push(layer_times(partitioner, module, &full, size.min(instances))?.total());
    }
    let least = latency.iter().copied().filter(|&t| t > 0.0).fold(f64::INFINITY, f64::min);
    let rule = |(i, &t): (usize, &f64)| {
        let ratio = if t > 0.0 { (t / least * (1.0 + 1e-9)).floor() } else { 1.0 };
        let by_rule = (ratio as u32).saturating_mul(partitioner.segment_factor);
        let count = partitioner.segments.get(&ModuleId::from(i)).copied().unwrap_or(by_rule);
        count.clamp(1, (partitioner.model.modules[i].layers / partitioner.ranks).max(1))
    };
    Ok(latency.iter().enumerate().map(rule).collect())
}
