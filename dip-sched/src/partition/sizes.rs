//! `B_i`, the sub-microbatch size of a module, and `K_i`, its number of segments.

use dip_core::{MicrobatchMeta, ModuleId};

use super::prices::prices;
use super::{PartitionError, Partitioner};

/// Share of the best efficiency that a sub-microbatch keeps.
const EFFICIENCY: f64 = 0.95;
/// Sizes up to which every one is measured; beyond, steps grow.
const MEASURED_SINGLY: u32 = 64;

/// `B_i` of every module: the smallest size with at least 95 % of the best instances a second.
pub(super) fn sub_microbatches(of: &Partitioner<'_>) -> Result<Vec<u32>, PartitionError> {
    let full = of.model.filled(1.0);
    (0..of.model.modules.len())
        .map(ModuleId::from)
        .map(|module| match of.sub_microbatch.get(&module) {
            Some(&size) => Ok(size),
            None => sub_microbatch(of, module, &full),
        })
        .collect()
}

fn sub_microbatch(
    of: &Partitioner<'_>,
    module: ModuleId,
    full: &MicrobatchMeta,
) -> Result<u32, PartitionError> {
    let (_, most) = of.model.instances(module, full);
    let mut measured = Vec::new();
    let mut size = 1;
    while size <= most {
        let seconds = prices(of, module, full, size)?.total();
        let efficiency = if seconds > 0.0 { f64::from(size) / seconds } else { f64::INFINITY };
        measured.push((size, efficiency));
        size += 1 + size / MEASURED_SINGLY;
    }
    let best = measured.iter().map(|m| m.1).fold(0.0, f64::max);
    let enough = measured.iter().find(|m| m.1 >= EFFICIENCY * best);
    Ok(enough.map_or(1, |m| m.0))
}

/// `K_i` of every module: `floor(T_i / T_1)`, where `T_1` is the least latency at `B_i`, or a multiple of that, but no more
/// than layers allow.
pub(super) fn segments(of: &Partitioner<'_>, sizes: &[u32]) -> Result<Vec<u32>, PartitionError> {
    let full = of.model.filled(1.0);
    let mut latency = Vec::new();
    for (i, &size) in sizes.iter().enumerate() {
        let module = ModuleId::from(i);
        let (_, most) = of.model.instances(module, &full);
        latency.push(prices(of, module, &full, size.min(most))?.total());
    }
    let least = latency.iter().copied().filter(|&t| t > 0.0).fold(f64::INFINITY, f64::min);
    let rule = |(i, &t): (usize, &f64)| {
        let ratio = if t > 0.0 { (t / least * (1.0 + 1e-9)).floor() } else { 1.0 };
        let by_rule = (ratio as u32).saturating_mul(of.finer);
        let wanted = of.segments.get(&ModuleId::from(i)).copied().unwrap_or(by_rule);
        wanted.clamp(1, (of.model.modules[i].layers / of.ranks).max(1))
    };
    Ok(latency.iter().enumerate().map(rule).collect())
}
