//! This system.

use dip_core::{ModuleId, Partition};

use super::deployment::{Deployment, Memory, SystemError};
use super::trial::{Tried, found, keep, mean_makespan};
use super::{Setting, System};
use crate::partition::Partitioner;
use crate::schedules::Dip;

/// Modality-aware placement, and for every batch its own order and memory strategies, weight gradients apart.
///
/// Sub-microbatches and segments are those of the paper's rules, or others where that does better over the history.
#[derive(Debug, Clone, Copy, Default)]
pub struct DipSystem;

/// Factors on the numbers of segments of the paper's rules, and then on its sub-microbatch sizes.
const SEGMENTS: [u32; 2] = [1, 2];
const SIZES: [f64; 1] = [2.0];

impl System for DipSystem {
    fn name(&self) -> &str {
        "dip"
    }

    fn deploy(&self, setting: &Setting<'_>) -> Result<Deployment, SystemError> {
        let rules = Partitioner::new(setting.model, setting.ranks, setting.cost);
        let first = rules.partition()?;
        let mut tried: Vec<Partition> = Vec::new();
        let mut best: Tried<(Deployment, u32)> = None;
        let mut consider = |segments: u32, size: f64, best: &mut Tried<_>| {
            let partition = scaled(&rules, &first, (size, segments)).partition()?;
            if !tried.contains(&partition) {
                tried.push(partition.clone());
                let deployment = deployment(setting, partition);
                let seconds = mean_makespan(setting, &deployment);
                keep(best, (deployment, segments), seconds);
            }
            Ok::<(), SystemError>(())
        };
        for segments in SEGMENTS {
            consider(segments, 1.0, &mut best)?;
        }
        if let Some(segments) = best.as_ref().map(|b| b.0.1) {
            for size in SIZES {
                consider(segments, size, &mut best)?;
            }
        }
        Ok(found(best, self.name(), setting)?.0)
    }
}

fn scaled<'a>(
    rules: &Partitioner<'a>,
    first: &Partition,
    (size, segments): (f64, u32),
) -> Partitioner<'a> {
    let mut partitioner = rules.clone().with_finer_segments(segments);
    for module in (0..first.modules.len()).map(ModuleId::from) {
        let instances = f64::from(first.module(module).sub_microbatch) * size;
        partitioner = partitioner.with_sub_microbatch(module, instances.ceil() as u32);
    }
    partitioner
}

fn deployment(setting: &Setting<'_>, partition: Partition) -> Deployment {
    let modules = setting.model.modules.iter().enumerate();
    let of = |(m, spec): (usize, &dip_core::ModuleSpec)| {
        let module = ModuleId::from(m);
        let (k, b) = (partition.segments(module), partition.module(module).sub_microbatch);
        format!("{} K = {k}, B = {b}", spec.name)
    };
    Deployment {
        choice: modules.map(of).collect::<Vec<_>>().join("; "),
        partition,
        memory: vec![Memory::Free],
        weight_split: true,
        schedule: Box::new(Dip),
    }
}
