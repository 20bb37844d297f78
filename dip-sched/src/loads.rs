//! What microbatches cost each pipeline rank.

use dip_core::{
    BatchMeta, ChunkQuery, CostError, CostModel, MicrobatchMeta, ModelSpec, ModuleId, Partition,
};

use crate::balance::Loads;
use crate::partition::split_batch;

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
    let of = |meta: &MicrobatchMeta| of_microbatch(model, partition, meta, cost);
    batch.microbatches.iter().map(of).collect()
}

fn of_microbatch(
    model: &ModelSpec,
    partition: &Partition,
    meta: &MicrobatchMeta,
    cost: &dyn CostModel,
) -> Result<Loads, CostError> {
    let runs_backward = model.runs_backward();
    let alone = BatchMeta { iteration: 0, microbatches: vec![meta.clone()] };
    let split = split_batch(model, partition, &alone);
    let mut loads = vec![0.0; partition.ranks as usize];
    for (m, module) in partition.modules.iter().enumerate() {
        let id = ModuleId::from(m);
        for slice in split.slices.iter().flat_map(|modules| &modules[m]) {
            let workload = model.workload(id, meta, slice.clone());
            for chunk in &module.chunks {
                let query = ChunkQuery {
                    model,
                    module: id,
                    layers: chunk.layers.clone(),
                    trainable: model.modules[m].trainable,
                    runs_backward: runs_backward[m],
                };
                if let Some(stage) = cost.candidates(&query, workload)?.first() {
                    loads[chunk.rank.index()] += (stage.forward + stage.backward).0;
                }
            }
        }
    }
    Ok(loads)
}
