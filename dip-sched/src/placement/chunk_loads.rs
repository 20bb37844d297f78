//! The load of every rank for the sample batches, from the chunks it holds.

use std::collections::HashMap;
use std::ops::Range;

use dip_core::{BatchMeta, ChunkQuery, CostError, CostModel, ModelSpec, ModuleId, Seconds};

use super::layer_ranks::LayerRanks;
use crate::planning::seconds_of_chunk;

/// The loads of chunks. A chunk costs the same on every rank, so the cost model is asked once.
pub(super) struct ChunkLoads<'a> {
    model: &'a ModelSpec,
    cost: &'a dyn CostModel,
    batches: &'a [BatchMeta],
    /// By module, layers and sub-microbatch; `None` if the cost model has no figure.
    known: HashMap<(usize, Range<u32>, u32), Option<ChunkLoad>>,
}

/// The load of one chunk.
struct ChunkLoad {
    /// Seconds of all its stages, by batch.
    stages: Vec<f64>,
    update: Seconds,
}

/// The loads of the busiest ranks.
pub(super) struct BusiestRanks {
    /// Seconds of all stages of the busiest rank, as a mean over the batches. No plan is shorter.
    pub(super) stages_s: f64,
    /// Seconds of the optimiser step on the rank with most to update.
    pub(super) update_s: f64,
}

impl<'a> ChunkLoads<'a> {
    pub(super) fn new(
        model: &'a ModelSpec,
        cost: &'a dyn CostModel,
        batches: &'a [BatchMeta],
    ) -> Self {
        Self { model, cost, batches, known: HashMap::new() }
    }

    /// The loads of the busiest ranks. `None` if the cost model has no figure.
    pub(super) fn busiest(&mut self, placement: &LayerRanks) -> Option<BusiestRanks> {
        let ranks = placement.ranks as usize;
        let mut stages = vec![vec![0.0; ranks]; self.batches.len()];
        let mut updates = vec![0.0; ranks];
        for (m, module) in placement.modules.iter().enumerate() {
            for (layers, rank) in module.runs() {
                let load = self.load(m, layers, module.sub_microbatch)?;
                updates[rank.index()] += load.update.0;
                for (sum, seconds) in stages.iter_mut().zip(&load.stages) {
                    sum[rank.index()] += seconds;
                }
            }
        }
        let busiest = |ranks: &[f64]| ranks.iter().copied().fold(0.0, f64::max);
        let sum: f64 = stages.iter().map(|ranks| busiest(ranks)).sum();
        Some(BusiestRanks {
            stages_s: sum / self.batches.len() as f64,
            update_s: busiest(&updates),
        })
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
