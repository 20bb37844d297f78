//! What microbatches cost each pipeline rank.

use dip_core::{BatchMeta, ChunkQuery, CostError, CostModel, MicrobatchMeta, ModelSpec, Partition};

use super::Loads;
use crate::partition::slices;

/// The seconds that every microbatch of a batch takes on every rank, forward and backward, with everything kept: what
/// [`balance_microbatches`](crate::balance_microbatches) deals by.
///
/// # Errors
/// [`CostError`] where a stage has no cost.
pub fn rank_loads(
    model: &ModelSpec,
    partition: &Partition,
    batch: &BatchMeta,
    cost: &dyn CostModel,
) -> Result<Vec<Loads>, CostError> {
    let of = |meta: &MicrobatchMeta| {
        let mut loads = vec![0.0; partition.ranks as usize];
        for (rank, chunk) in partition.queries(model) {
            let size = partition.module(chunk.module).sub_microbatch;
            loads[rank.index()] += seconds_of_chunk(&chunk, size, meta, cost)?;
        }
        Ok(loads)
    };
    batch.microbatches.iter().map(of).collect()
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
