//! Optimus: separate chunks for encoders and backbone, encoders around the pipeline of the backbone.

use std::sync::Arc;

use dip_core::{ModelSpec, ModuleId, Partition};

use super::deployment::{Deployment, SystemError};
use super::megatron::virtual_stages;
use super::trial::fastest_recompute;
use super::{Recompute, System, SystemInputs};
use crate::partition::PartitionError;
use crate::schedules::Optimus;

/// The numbers of chunks per rank of an encoder that are tried.
const ENCODER: [u32; 3] = [1, 2, 4];

/// Coarse-grained Optimus: every module has chunks of its own, `V` per rank for the backbone. Encoder forwards come first, encoder
/// backwards last. The numbers of chunks and the recomputation of each module are the fastest over the history.
#[derive(Debug, Clone, Copy, Default)]
pub struct OptimusSystem;

/// Chunks per rank of each kind of module.
#[derive(Debug, Clone, Copy)]
struct ChunksPerRank {
    backbone: u32,
    encoder: u32,
}

impl System for OptimusSystem {
    fn name(&self) -> &str {
        "optimus"
    }

    fn deploy(&self, inputs: &SystemInputs<'_>) -> Result<Deployment, SystemError> {
        let model = inputs.model();
        let (backbone, layers) = backbone(model);
        let chunks = virtual_stages(layers, inputs.planning.ranks())
            .flat_map(|v| ENCODER.map(|encoder| ChunksPerRank { backbone: v, encoder }));
        let place = |chunks| separate(inputs, backbone, chunks);
        let partitions = chunks.map(place).collect::<Result<Vec<_>, _>>()?;
        let deploy = |partition: Partition, settings: &[Recompute]| Deployment {
            choice: describe(inputs, &partition, settings),
            memory: Recompute::fallbacks(&partition, settings),
            planning: inputs.planning.clone().with_partition(partition).with_weight_split(false),
            schedule: Arc::new(Optimus),
            evens_out: false,
        };
        fastest_recompute(self.name(), inputs, partitions, &deploy)
    }
}

/// The module at the end of the model with most layers, and their number.
pub(super) fn backbone(model: &ModelSpec) -> (ModuleId, u32) {
    let consumed = |m: &usize| !model.consumers_of(ModuleId::from(*m)).is_empty();
    let sinks = model.modules.iter().map(|m| m.layers).enumerate();
    let backbone = sinks.filter(|(m, _)| !consumed(m)).max_by_key(|sink| sink.1);
    let (module, layers) = backbone.unwrap_or((0, 1));
    (ModuleId::from(module), layers)
}

/// Separate chunks for every module; microbatches are whole.
fn separate(
    inputs: &SystemInputs<'_>,
    backbone: ModuleId,
    chunks: ChunksPerRank,
) -> Result<Partition, PartitionError> {
    let mut partitioner = inputs.planning.partitioner();
    for module in (0..inputs.model().modules.len()).map(ModuleId::from) {
        let segments = if module == backbone { chunks.backbone } else { chunks.encoder };
        partitioner = partitioner.with_segments(module, segments);
        partitioner = partitioner.with_sub_microbatch(module, u32::MAX);
    }
    partitioner.partition()
}

/// `chunks a rank: vision 1, language 4; vision keeps all, language recomputes 2/8`.
fn describe(inputs: &SystemInputs<'_>, partition: &Partition, settings: &[Recompute]) -> String {
    let modules = inputs.model().modules.iter().enumerate();
    let segments: Vec<_> = modules
        .map(|(m, spec)| format!("{} {}", spec.name, partition.segments(m.into())))
        .collect();
    format!(
        "chunks a rank: {}; {}",
        segments.join(", "),
        Recompute::describe(inputs.model(), settings)
    )
}
