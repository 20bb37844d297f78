//! Optimus: encoders and backbone placed apart, encoders around the backbone's pipeline.

use dip_core::{ModuleId, Partition};

use super::deployment::{Deployment, SystemError};
use super::megatron::VIRTUAL;
use super::trial::best_recompute;
use super::{Recompute, Setting, System};
use crate::partition::{PartitionError, Partitioner};
use crate::schedules::Optimus;

/// Coarse-grained Optimus: every module has chunks of its own, one a rank for encoders and `V` for the backbone; encoder
/// forwards come first and encoder backwards last. `V` and what each module computes again do best over the history.
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
        let place = |&v: &u32| separate(setting, ModuleId::from(backbone), v);
        let partitions = VIRTUAL.iter().filter(fits).map(place).collect::<Result<Vec<_>, _>>()?;
        let deploy = |partition: Partition, settings: &[Recompute]| {
            let v = partition.segments(ModuleId::from(backbone));
            Deployment {
                choice: format!("V = {v}; {}", Recompute::describe(model, settings)),
                memory: Recompute::fallbacks(&partition, settings),
                partition,
                weight_split: false,
                schedule: Box::new(Optimus),
            }
        };
        best_recompute(self.name(), setting, partitions, &deploy)
    }
}

/// One chunk a rank for every module but the backbone, which has `v`; microbatches whole.
fn separate(
    setting: &Setting<'_>,
    backbone: ModuleId,
    v: u32,
) -> Result<Partition, PartitionError> {
    let mut partitioner = Partitioner::new(setting.model, setting.ranks, setting.cost);
    for module in (0..setting.model.modules.len()).map(ModuleId::from) {
        let segments = if module == backbone { v } else { 1 };
        partitioner = partitioner.with_segments(module, segments);
        partitioner = partitioner.with_sub_microbatch(module, u32::MAX);
    }
    partitioner.partition()
}
