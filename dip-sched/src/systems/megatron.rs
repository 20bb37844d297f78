//! Megatron-LM: a virtual pipeline over the concatenated layers.

use std::sync::Arc;

use dip_core::{ModulePartition, Partition};

use super::deployment::{Deployment, SystemError};
use super::parameters::ParameterCost;
use super::trial::fastest_recompute;
use super::{Recompute, System, SystemInputs};
use crate::partition::Partitioner;
use crate::schedules::Interleaved;

/// The numbers of chunks per rank that are tried.
const VIRTUAL: [u32; 5] = [1, 2, 4, 8, 16];

/// Interleaved 1F1B (VPP). The layers of all modules, one module after another, are cut into `V` chunks per rank of about equal
/// parameters. `V` and the recomputation of each module are the fastest over the history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Megatron;

impl System for Megatron {
    fn name(&self) -> &str {
        "megatron"
    }

    fn deploy(&self, inputs: &SystemInputs<'_>) -> Result<Deployment, SystemError> {
        let (model, ranks) = (inputs.model(), inputs.planning.ranks());
        let partitioner = Partitioner::new(model, ranks, &ParameterCost);
        let layers: u32 = model.modules.iter().map(|m| m.layers).sum();
        let partitions = virtual_stages(layers, ranks).map(|v| partitioner.contiguous(v));
        let partitions = partitions.collect::<Result<Vec<_>, _>>()?;
        let deploy = |partition: Partition, settings: &[Recompute]| Deployment {
            choice: describe(inputs, &partition, settings),
            memory: Recompute::fallbacks(&partition, settings),
            planning: inputs.planning.clone().with_partition(partition).with_weight_split(false),
            schedule: Arc::new(Interleaved),
            evens_out: false,
        };
        fastest_recompute(self.name(), inputs, partitions, &deploy)
    }
}

/// The numbers of chunks per rank that this number of layers allows.
pub(super) fn virtual_stages(layers: u32, ranks: u32) -> impl Iterator<Item = u32> {
    VIRTUAL.into_iter().filter(move |&v| v == 1 || v.saturating_mul(ranks) <= layers)
}

/// `4 chunks a rank; vision keeps all, language recomputes 2/8`.
fn describe(inputs: &SystemInputs<'_>, partition: &Partition, settings: &[Recompute]) -> String {
    let on_first = |m: &ModulePartition| m.chunks.iter().filter(|c| c.rank.0 == 0).count();
    let v: usize = partition.modules.iter().map(on_first).sum();
    format!("{v} chunks a rank; {}", Recompute::describe(inputs.model(), settings))
}
