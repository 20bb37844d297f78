//! Connects each rank with its replicas, in this process and the others.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::RankId;

use crate::runtime::collective::{Collective, Layout, RankReplicas};
use crate::runtime::error::PipelineError;
use crate::runtime::init::PipelineInit;

/// A rank's end of the sums over its replicas; absent in a run with one replica.
pub(super) type Member<B> = Option<Arc<dyn Collective<B>>>;

/// The members of all ranks, replica by replica.
///
/// Accepts messages of the other processes before it agrees with them on the partition, because a process that has agreed may send
/// at once.
pub(super) fn connect<B: Backend>(
    init: &PipelineInit<'_, B>,
    layouts: Vec<Layout>,
) -> Result<Vec<Member<B>>, PipelineError> {
    let group = &init.connections.group;
    group.accept_bytes(max_state_bytes(&layouts));
    let members = if group.size() * init.replicas() > 1 {
        members(init, layouts)?
    } else {
        vec![None; init.devices.len()]
    };
    group.agree("the partition", || settings(init))?;
    Ok(members)
}

fn members<B: Backend>(
    init: &PipelineInit<'_, B>,
    layouts: Vec<Layout>,
) -> Result<Vec<Member<B>>, PipelineError> {
    let ranks = layouts.len();
    let mut all = vec![None; init.devices.len()];
    for (r, layout) in layouts.into_iter().enumerate() {
        let rank = RankId::from(r);
        let devices: Vec<B::Device> = init.devices.iter().skip(r).step_by(ranks).cloned().collect();
        let replicas = RankReplicas::new(rank, &devices, layout);
        let members = init.connections.collectives.connect(replicas);
        let members = members.map_err(|source| PipelineError::Connect { rank, source })?;
        if members.len() != devices.len() {
            return Err(PipelineError::Connections {
                what: "members of a collective",
                given: members.len(),
                expected: devices.len(),
            });
        }
        for (replica, member) in members.into_iter().enumerate() {
            all[replica * ranks + r] = Some(member);
        }
    }
    Ok(all)
}

/// The settings that processes must share to sum each other's gradients, one field per line.
fn settings<B: Backend>(init: &PipelineInit<'_, B>) -> String {
    let fields = (init.partition, init.replicas(), &init.optimizer, init.precision);
    serde_json::to_string_pretty(&fields).expect("plain data has a JSON form")
}

/// The longest file of a checkpoint, which the first process sends to the others: weights, two moments and averages in f32, with
/// names.
fn max_state_bytes(layouts: &[Layout]) -> usize {
    const COPIES: usize = 4;
    const NAME_BYTES: usize = 1024;
    const HEADER_BYTES: usize = 16 << 20;
    // Every chunk has two buckets of the same lengths.
    let lengths = || layouts.iter().flatten().step_by(2).flatten();
    let values = lengths().fold(0usize, |sum, &length| sum.saturating_add(length));
    let value_bytes = values.saturating_mul(COPIES * size_of::<f32>());
    value_bytes.saturating_add(lengths().count() * COPIES * NAME_BYTES).saturating_add(HEADER_BYTES)
}
