//! Chunks of every module on ranks: chunk `j` on rank `j mod P`, layers as equal as possible, and what does not divide where
//! it balances the load of the ranks.

use dip_core::{Chunk, ModuleId, ModulePartition, Partition, RankId, SegmentId};

use super::prices::{Prices, prices};
use super::{PartitionError, Partitioner};

/// Places all modules for given `B_i` and `K_i`.
pub(super) fn place(
    of: &Partitioner<'_>,
    sizes: &[u32],
    segments: &[u32],
) -> Result<Partition, PartitionError> {
    let loads = loads(of, sizes)?;
    let ranks = of.ranks as usize;
    let mut drafts: Vec<Draft> =
        loads.iter().zip(segments).map(|(&p, &k)| Draft::new(p, k, ranks)).collect();
    let mut load = vec![0.0; ranks];
    for draft in drafts.iter().filter(|d| d.base > 0) {
        for j in 0..draft.chunks {
            load[j % ranks] += draft.base_load(j);
        }
    }
    // Heavy layers first: light ones even out what is left.
    let mut order: Vec<usize> = (0..drafts.len()).collect();
    order.sort_by(|&a, &b| drafts[b].prices.layer_s.total_cmp(&drafts[a].prices.layer_s));
    for i in order {
        drafts[i].spread(&mut load);
    }
    let modules = drafts.iter().zip(sizes).map(|(d, &size)| d.finish(size, ranks)).collect();
    Ok(Partition { ranks: of.ranks, modules })
}

/// Prices of every module for all its sub-microbatches of the representative microbatch.
fn loads(of: &Partitioner<'_>, sizes: &[u32]) -> Result<Vec<Prices>, PartitionError> {
    let meta = of.representative();
    sizes
        .iter()
        .enumerate()
        .map(|(i, &size)| {
            let module = ModuleId::from(i);
            let (_, instances) = of.model.instances(module, &meta);
            let slice = size.min(instances);
            let times = f64::from(instances) / f64::from(slice.max(1));
            Ok(prices(of, module, &meta, slice)?.scaled(times))
        })
        .collect()
}

/// A module while its layers are spread.
struct Draft {
    prices: Prices,
    chunks: usize,
    /// Layers that every chunk has. 0 where there are fewer layers than ranks.
    base: u32,
    /// Whether each chunk has one layer more.
    extra: Vec<bool>,
}

impl Draft {
    fn new(prices: Prices, segments: u32, ranks: usize) -> Self {
        let most = (prices.layers as usize / ranks).max(1);
        let chunks = ranks * (segments as usize).clamp(1, most);
        Self { prices, chunks, base: prices.layers / chunks as u32, extra: vec![false; chunks] }
    }

    /// The load of a chunk that has only its base layers.
    fn base_load(&self, chunk: usize) -> f64 {
        let mut load = f64::from(self.base) * self.prices.layer_s;
        if chunk == 0 {
            load += self.prices.first_s;
        }
        if chunk + 1 == self.chunks {
            load += self.prices.last_s;
        }
        load
    }

    /// Gives every layer that is left to the chunk on the least loaded rank.
    fn spread(&mut self, load: &mut [f64]) {
        let left = self.prices.layers - self.base * self.chunks as u32;
        for _ in 0..left {
            let free = (0..self.chunks).filter(|&j| !self.extra[j]);
            let by_load = |a: &usize, b: &usize| {
                load[a % load.len()].total_cmp(&load[b % load.len()]).then(a.cmp(b))
            };
            let Some(j) = free.min_by(by_load) else { return };
            self.extra[j] = true;
            load[j % load.len()] += self.prices.layer_s;
        }
        if self.base == 0 {
            // Without layers of their own in every chunk, the ends go where the first and last layer went.
            let first = self.extra.iter().position(|&e| e).unwrap_or(0);
            let last = self.extra.iter().rposition(|&e| e).unwrap_or(0);
            load[first % load.len()] += self.prices.first_s;
            load[last % load.len()] += self.prices.last_s;
        }
    }

    fn finish(&self, sub_microbatch: u32, ranks: usize) -> ModulePartition {
        let mut start = 0;
        let mut chunks = Vec::new();
        for (j, &extra) in self.extra.iter().enumerate() {
            let end = start + self.base + u32::from(extra);
            if end > start {
                chunks.push(Chunk {
                    rank: RankId::from(j % ranks),
                    segment: SegmentId::from(j / ranks),
                    layers: start..end,
                });
            }
            start = end;
        }
        ModulePartition { sub_microbatch, chunks }
    }
}
