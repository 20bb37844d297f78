//! The time that microbatches take on each pipeline rank.

use dip_core::{BatchMeta, ChunkQuery, CostError, CostModel, MicrobatchMeta};

use super::{MicrobatchLoads, Planning};
use crate::partition::slices;

impl Planning {
    /// The seconds, forward and backward, of every microbatch on every rank, under the first strategy that the cost model offers. These
    /// are the loads that [`assign_microbatches`](super::assign_microbatches) takes.
    ///
    /// # Errors
    /// [`CostError`] if a stage has no cost.
    pub fn rank_loads(&self, batch: &BatchMeta) -> Result<Vec<MicrobatchLoads>, CostError> {
        let of_microbatch = |meta: &MicrobatchMeta| {
            let mut loads = vec![0.0; self.ranks() as usize];
            for (rank, chunk) in self.partition().queries(self.model()) {
                let size = self.partition().module(chunk.module).sub_microbatch;
                loads[rank.index()] += seconds_of_chunk(&chunk, size, meta, &**self.cost())?;
            }
            Ok(loads)
        };
        batch.microbatches.iter().map(of_microbatch).collect()
    }
}

/// The seconds of all slices of a microbatch on one chunk.
pub(crate) fn seconds_of_chunk(
    chunk: &ChunkQuery<'_>,
    sub_microbatch: u32,
    meta: &MicrobatchMeta,
    cost: &dyn CostModel,
) -> Result<f64, CostError> {
    let mut seconds = 0.0;
    for slice in slices(chunk.model, chunk.module, sub_microbatch, meta) {
        let workload = chunk.model.workload(chunk.module, meta, slice);
        if let Some(stage) = cost.candidates(chunk, workload)?.first() {
            seconds += (stage.forward + stage.backward).0;
        }
    }
    Ok(seconds)
}
