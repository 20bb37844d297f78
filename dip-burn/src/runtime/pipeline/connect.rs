//! Connects each rank with its replicas, in this process and the others.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::{ModelSpec, ModuleId, RankId};

use crate::runtime::chunks::{Chunks, layout_of};
use crate::runtime::collective::{Collective, RankReplicas};
use crate::runtime::error::PipelineError;
use crate::runtime::group::{Position, ProcessGrid};
use crate::runtime::init::PipelineInit;

/// A rank's end of the sums over its replicas; absent in a run with one replica.
pub(super) type Member<B> = Option<Arc<dyn Collective<B>>>;

/// The members of the ranks of this process, by position.
///
/// Accepts messages of the other processes before it agrees with them on the partition, because a process that has agreed may send
/// at once.
pub(super) fn connect<B: Backend>(
    init: &PipelineInit<'_, B>,
    grid: &ProcessGrid,
    chunks: &[(Position, Chunks<B>)],
) -> Result<Vec<Member<B>>, PipelineError> {
    let group = &init.connections.group;
    group.accept_bytes(max_weight_bytes(init.model));
    let members =
        if grid.replicas() > 1 { members(init, chunks)? } else { vec![None; chunks.len()] };
    group.agree("the partition", || settings(init, grid))?;
    Ok(members)
}

fn members<B: Backend>(
    init: &PipelineInit<'_, B>,
    chunks: &[(Position, Chunks<B>)],
) -> Result<Vec<Member<B>>, PipelineError> {
    let mut all = vec![None; chunks.len()];
    for rank in (0..init.partition.ranks).map(RankId) {
        let of_rank = |&i: &usize| chunks[i].0.rank == rank;
        let own: Vec<usize> = (0..chunks.len()).filter(of_rank).collect();
        let Some(&first) = own.first() else { continue };
        let devices: Vec<B::Device> = own.iter().map(|&i| init.devices[i].clone()).collect();
        let replicas = RankReplicas::new(rank, &devices, layout_of(&chunks[first].1));
        let members = init.connections.collectives.connect(replicas);
        let members = members.map_err(|source| PipelineError::Connect { rank, source })?;
        if members.len() != devices.len() {
            return Err(PipelineError::Connections {
                what: "members of a collective",
                given: members.len(),
                expected: devices.len(),
            });
        }
        for (i, member) in own.into_iter().zip(members) {
            all[i] = Some(member);
        }
    }
    Ok(all)
}

/// The settings that processes must share to sum each other's gradients, one field per line.
fn settings<B: Backend>(init: &PipelineInit<'_, B>, grid: &ProcessGrid) -> String {
    let fields = (init.partition, grid.replicas(), &init.optimizer, init.precision);
    serde_json::to_string_pretty(&fields).expect("plain data has a JSON form")
}

/// The weights of all ranks in f32 with their names, which the first process gathers.
fn max_weight_bytes(model: &ModelSpec) -> usize {
    /// Room for tensors that the count of parameters leaves out.
    const SLACK: u64 = 2;
    const HEADER_BYTES: u64 = 64 << 20;
    let of_module = |m: usize| model.parameters(ModuleId::from(m)).total();
    let values = (0..model.modules.len()).map(of_module).fold(0, u64::saturating_add);
    let bytes = values.saturating_mul(SLACK * size_of::<f32>() as u64);
    usize::try_from(bytes.saturating_add(HEADER_BYTES)).unwrap_or(usize::MAX)
}
