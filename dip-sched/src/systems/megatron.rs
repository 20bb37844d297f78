//! Megatron-LM: a virtual pipeline over the concatenated layers.

use dip_core::Partition;

use super::deployment::{Deployment, SystemError};
use super::parameters::ParameterCost;
use super::trial::best_recompute;
use super::{Recompute, Setting, System};
use crate::partition::Partitioner;
use crate::schedules::Interleaved;

/// Chunks a rank that are tried.
pub(super) const VIRTUAL: [u32; 5] = [1, 2, 4, 8, 16];

/// Interleaved 1F1B (VPP). The layers of all modules, one after the other, are cut into `V` times as many chunks as ranks,
/// about equal in parameters; `V` and what each module computes again are those that do best over the history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Megatron;

impl System for Megatron {
    fn name(&self) -> &str {
        "megatron"
    }

    fn deploy(&self, setting: &Setting<'_>) -> Result<Deployment, SystemError> {
        let partitioner = Partitioner::new(setting.model, setting.ranks, &ParameterCost);
        let layers: u32 = setting.model.modules.iter().map(|m| m.layers).sum();
        let fits = |&&v: &&u32| v == 1 || v.saturating_mul(setting.ranks) <= layers;
        let partitions = VIRTUAL.iter().filter(fits).map(|&v| partitioner.contiguous(v));
        let partitions = partitions.collect::<Result<Vec<_>, _>>()?;
        let deploy = |partition: Partition, settings: &[Recompute]| Deployment {
            choice: describe(setting, &partition, settings),
            memory: Recompute::fallbacks(&partition, settings),
            partition,
            weight_split: false,
            schedule: Box::new(Interleaved),
        };
        best_recompute(self.name(), setting, partitions, &deploy)
    }
}

/// `V = 4; vision keeps all, language recomputes 2/8`.
fn describe(setting: &Setting<'_>, partition: &Partition, settings: &[Recompute]) -> String {
    let on_first =
        |m: &dip_core::ModulePartition| m.chunks.iter().filter(|c| c.rank.0 == 0).count();
    let v: usize = partition.modules.iter().map(on_first).sum();
    format!("V = {v}; {}", Recompute::describe(setting.model, settings))
}
