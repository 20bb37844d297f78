//! What ranks have to do for the sample batches, by the chunks they hold.

use std::collections::HashMap;
use std::ops::Range;

use dip_core::{BatchMeta, ChunkQuery, CostError, CostModel, ModelSpec, ModuleId, Seconds};

use super::layout::Layout;
use crate::planning::seconds_of_chunk;

/// Seconds of chunks, which are the same on every rank, so that each is asked for once.
pub(super) struct ChunkLoads<'a> {
    model: &'a ModelSpec,
    cost: &'a dyn CostModel,
    batches: &'a [BatchMeta],
    /// By module, layers and sub-microbatch; `None` where the cost model has no figure.
    known: HashMap<(usize, Range<u32>, u32), Option<ChunkLoad>>,
}

/// Seconds of one chunk.
struct ChunkLoad {
    /// All its stages, by batch.
    stages: Vec<f64>,
    update: Seconds,
}

impl<'a> ChunkLoads<'a> {
    pub(super) fn new(
        model: &'a ModelSpec,
        cost: &'a dyn CostModel,
        batches: &'a [BatchMeta],
    ) -> Self {
        Self { model, cost, batches, known: HashMap::new() }
    }

    /// Seconds of the rank with most to do, in the mean over the batches, which no plan is shorter than, and of the optimiser on the
    /// rank with most to update. `None` where the cost model has no figure.
    pub(super) fn busiest(&mut self, layout: &Layout) -> Option<(f64, f64)> {
        let ranks = layout.ranks as usize;
        let mut stages = vec![vec![0.0; ranks]; self.batches.len()];
        let mut updates = vec![0.0; ranks];
        for (m, module) in layout.modules.iter().enumerate() {
            for (layers, rank) in module.runs() {
                let load = self.load(m, layers, module.sub_microbatch)?;
                updates[rank.index()] += load.update.0;
                for (sum, seconds) in stages.iter_mut().zip(&load.stages) {
                    sum[rank.index()] += seconds;
                }
            }
        }
        let most = |ranks: &[f64]| ranks.iter().copied().fold(0.0, f64::max);
        let sum: f64 = stages.iter().map(|ranks| most(ranks)).sum();
        Some((sum / self.batches.len() as f64, most(&updates)))
    }

    fn load(&mut self, m: usize, layers: Range<u32>, size: u32) -> Option<&ChunkLoad> {
        let key = (m, layers, size);
        if !self.known.contains_key(&key) {
            let chunk = ChunkQuery::new(self.model, ModuleId::from(m), key.1.clone());
            self.known.insert(key.clone(), self.measured(&chunk, size).ok());
        }
        self.known[&key].as_ref()
    }

    fn measured(&self, chunk: &ChunkQuery<'_>, size: u32) -> Result<ChunkLoad, CostError> {
        let of_batch = |batch: &BatchMeta| -> Result<f64, CostError> {
            let microbatches = batch.microbatches.iter();
            microbatches.map(|meta| seconds_of_chunk(chunk, size, meta, self.cost)).sum()
        };
        let stages = self.batches.iter().map(of_batch).collect::<Result<_, _>>()?;
        Ok(ChunkLoad { stages, update: self.cost.update(chunk) })
    }
}
