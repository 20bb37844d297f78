//! Optimus: encoders and backbone placed apart, encoders around the backbone's pipeline.

use dip_core::{ModuleId, Partition};

use super::deployment::{Deployment, SystemError};
use super::megatron::VIRTUAL;
use super::trial::best_recompute;
use super::{Recompute, Setting, System};
use crate::partition::{PartitionError, Partitioner};
use crate::schedules::Optimus;

/// Chunks a rank of an encoder that are tried.
const ENCODER: [u32; 3] = [1, 2, 4];

/// Coarse-grained Optimus: every module has chunks of its own, `V` a rank for the backbone; encoder forwards come first and
/// encoder backwards last. The numbers of chunks and what each module computes again do best over the history.
#[derive(Debug, Clone, Copy, Default)]
pub struct OptimusSystem;

impl System for OptimusSystem {
    fn name(&self) -> &str {
        "optimus"
    }

    fn deploy(&self, setting: &Setting<'_>) -> Result<Deployment, SystemError> {
        let model = setting.model;
        let backbone = model.modules.iter().map(|m| m.layers).enumerate();
        let consumed = |m: &usize| !model.consumers_of(ModuleId::from(*m)).is_empty();
        let last = backbone.filter(|(m, _)| !consumed(m)).max_by_key(|b| b.1);
        let (backbone, layers) = last.map_or((0, 1), |(m, layers)| (m, layers));
        let fits = |&&v: &&u32| v == 1 || v.saturating_mul(setting.ranks) <= layers;
        let pairs = VIRTUAL.iter().filter(fits).flat_map(|&v| ENCODER.map(|e| (v, e)));
        let place = |(v, e)| separate(setting, ModuleId::from(backbone), (v, e));
        let partitions = pairs.map(place).collect::<Result<Vec<_>, _>>()?;
        let deploy = |partition: Partition, settings: &[Recompute]| {
            let segments: Vec<_> = (0..model.modules.len())
                .map(|m| format!("{} V = {}", model.modules[m].name, partition.segments(m.into())))
                .collect();
            Deployment {
                choice: format!(
                    "{}; {}",
                    segments.join(", "),
                    Recompute::describe(model, settings)
                ),
                memory: Recompute::fallbacks(&partition, settings),
                partition,
                weight_split: false,
                schedule: Box::new(Optimus),
            }
        };
        best_recompute(self.name(), setting, partitions, &deploy)
    }
}

/// `encoder` chunks a rank for every module but the backbone, which has `v`; microbatches whole.
fn separate(
    setting: &Setting<'_>,
    backbone: ModuleId,
    (v, encoder): (u32, u32),
) -> Result<Partition, PartitionError> {
    let mut partitioner = Partitioner::new(setting.model, setting.ranks, setting.cost);
    for module in (0..setting.model.modules.len()).map(ModuleId::from) {
        let segments = if module == backbone { v } else { encoder };
        partitioner = partitioner.with_segments(module, segments);
        partitioner = partitioner.with_sub_microbatch(module, u32::MAX);
    }
    partitioner.partition()
}
