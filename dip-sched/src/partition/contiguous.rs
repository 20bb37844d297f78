//! The partition of the baselines: contiguous runs of layers, about equal in latency, over the modules in topological order.

use dip_core::{Chunk, ModuleId, ModulePartition, Partition, RankId, Route, SegmentId};

use super::layer_times::layer_times;
use super::{PartitionError, Partitioner};

/// A layer with its seconds.
pub(super) struct TimedLayer {
    pub(super) module: ModuleId,
    pub(super) index: u32,
    pub(super) seconds: f64,
}

/// Cuts all layers into `runs_per_rank * P` runs along a route.
pub(super) fn place(
    partitioner: &Partitioner<'_>,
    route: Route,
    runs_per_rank: u32,
) -> Result<Partition, PartitionError> {
    let layers = layers(partitioner)?;
    let runs = partitioner.ranks.saturating_mul(runs_per_rank);
    if (layers.len() as u64) < u64::from(runs) {
        return Err(PartitionError::TooFewLayers { layers: layers.len() as u32, runs });
    }
    let seconds: Vec<f64> = layers.iter().map(|l| l.seconds).collect();
    let cuts = cut(&seconds, runs as usize);
    let empty = || ModulePartition { sub_microbatch: u32::MAX, chunks: Vec::new() };
    let mut modules: Vec<ModulePartition> =
        partitioner.model.modules.iter().map(|_| empty()).collect();
    let mut start = 0;
    for (run, end) in cuts.into_iter().enumerate() {
        let rank = RankId::from(route.rank(run, partitioner.ranks as usize));
        for part in layers[start..end].chunk_by(|a, b| a.module == b.module) {
            let chunks = &mut modules[part[0].module.index()].chunks;
            let before = chunks.iter().filter(|c| c.rank == rank).count();
            let range = part[0].index..part[part.len() - 1].index + 1;
            chunks.push(Chunk { rank, segment: SegmentId::from(before), layers: range });
        }
        start = end;
    }
    Ok(Partition { ranks: partitioner.ranks, modules })
}

/// All layers, with their seconds for the whole representative microbatch.
pub(super) fn layers(partitioner: &Partitioner<'_>) -> Result<Vec<TimedLayer>, PartitionError> {
    let meta = partitioner.representative();
    let mut layers = Vec::new();
    for module in partitioner.model.topological_order() {
        let (_, instances) = partitioner.model.instances(module, &meta);
        let times = layer_times(partitioner, module, &meta, instances)?;
        layers.extend((0..times.layers).map(|index| TimedLayer {
            module,
            index,
            seconds: times.of(index, index + 1),
        }));
    }
    Ok(layers)
}

/// Cuts the layers into `runs` non-empty runs so that the longest is as short as possible. Among such cuts, prefers runs close to
/// the average. Returns the end of each run.
pub(super) fn cut(seconds: &[f64], runs: usize) -> Vec<usize> {
    let n = seconds.len();
    let mut sum = vec![0.0; n + 1];
    for (i, s) in seconds.iter().enumerate() {
        sum[i + 1] = sum[i] + s;
    }
    let longest = min_longest_run(&sum, runs);
    let needed = runs_needed(&sum, longest);
    let mut ends = Vec::with_capacity(runs);
    let mut start = 0;
    for left in (1..=runs).rev() {
        let target = sum[start] + (sum[n] - sum[start]) / left as f64;
        let allowed = |&end: &usize| {
            n - end >= left - 1 && needed[end] < left && sum[end] - sum[start] <= longest
        };
        let distance = |&end: &usize| (sum[end] - target).abs();
        let candidates = (start + 1..=n).filter(allowed).filter(|&end| left > 1 || end == n);
        let end = candidates.min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(n);
        ends.push(end);
        start = end;
    }
    ends
}

/// Seconds of the longest run in the best cut, by dynamic programming over the number of runs.
fn min_longest_run(sum: &[f64], runs: usize) -> f64 {
    let n = sum.len() - 1;
    // `best[j]`: the longest run in the best cut of the first `j` layers into the runs so far.
    let mut best: Vec<f64> = sum.to_vec();
    best[0] = f64::INFINITY;
    for run in 2..=runs {
        let mut next = vec![f64::INFINITY; n + 1];
        let mut i = run - 1;
        for j in run..=n {
            // With `i`, `best[i]` rises and `sum[j] - sum[i]` falls, so the best cut never moves left.
            let value = |i: usize| best[i].max(sum[j] - sum[i]);
            while i + 1 < j && value(i + 1) <= value(i) {
                i += 1;
            }
            next[j] = value(i);
        }
        best = next;
    }
    best[n] * (1.0 + 1e-12)
}

/// For every start, the minimum number of runs of at most `longest` seconds that hold the remaining layers.
fn runs_needed(sum: &[f64], longest: f64) -> Vec<usize> {
    let n = sum.len() - 1;
    let mut needed = vec![0; n + 1];
    let mut end = n;
    for start in (0..n).rev() {
        while end > start + 1 && sum[end] - sum[start] > longest {
            end -= 1;
        }
        needed[start] = needed[end] + 1;
    }
    needed
}
