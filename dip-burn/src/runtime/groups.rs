//! The groups that the same rank of all replicas forms, on this node and the others.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::RankId;

use super::collective::{Collective, Layout, ThreadCollective};
use super::error::PipelineError;
use super::nodes::NodeGroup;
use super::pipeline::PipelineInit;

/// What connects the replicas of each rank, in the order of the workers; nothing where there is one replica.
#[expect(clippy::type_complexity, reason = "one entry a worker")]
pub(super) fn collectives<B: Backend>(
    init: &PipelineInit<'_, B>,
    layouts: Vec<Layout>,
    nodes: Option<&NodeGroup>,
) -> Result<Vec<Option<Arc<dyn Collective<B>>>>, PipelineError> {
    let ranks = init.partition.ranks as usize;
    let mut all: Vec<Option<Arc<dyn Collective<B>>>> = vec![None; init.devices.len()];
    for (r, layout) in layouts.into_iter().enumerate() {
        let devices: Vec<B::Device> = init.devices.iter().skip(r).step_by(ranks).cloned().collect();
        let rank = RankId::from(r);
        let group = match nodes {
            Some(nodes) => {
                let transport = nodes.transport().clone();
                ThreadCollective::group_on_nodes(&devices, r, layout, transport)
            }
            None if devices.len() < 2 => continue,
            None => ThreadCollective::group(&devices),
        };
        let group = group.map_err(|source| PipelineError::Thread { rank, source })?;
        for (replica, member) in group.into_iter().enumerate() {
            all[replica * ranks + r] = Some(Arc::new(member));
        }
    }
    Ok(all)
}

/// What nodes must have alike to sum the gradients of one another, a field a line.
pub(super) fn alike<B: Backend>(init: &PipelineInit<'_, B>, replicas: usize) -> String {
    let fields = (init.partition, replicas, init.optimizer, init.precision);
    serde_json::to_string_pretty(&fields).expect("plain data has a JSON form")
}

/// The longest file of a checkpoint, which the first node sends to the others: weights, two moments and averages in f32, with
/// names.
pub(super) fn most_state_bytes(layouts: &[Layout]) -> usize {
    // Every chunk has two buckets.
    let lengths = || layouts.iter().flatten().step_by(2).flatten();
    let values = lengths().fold(0usize, |sum, &length| sum.saturating_add(length));
    let (copies, name_bytes, header_bytes) = (4, 1024, 16 << 20);
    let values = values.saturating_mul(copies * size_of::<f32>());
    values.saturating_add(lengths().count() * copies * name_bytes).saturating_add(header_bytes)
}
