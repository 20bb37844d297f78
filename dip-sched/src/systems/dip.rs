//! The system of this project.

use std::sync::Arc;

use dip_core::{ModuleId, ModuleSpec, Partition};

use super::deployment::{Deployment, MemoryPolicy, SystemError};
use super::trial::{Fastest, mean_makespan};
use super::{System, SystemInputs};
use crate::partition::Partitioner;
use crate::placement::routed_partitions;
use crate::schedules::Dip;

/// Modality-aware placement; for every batch a searched order with its own memory strategies and split weight gradients.
///
/// Sub-microbatches and segments follow the paper's rules, or multiples of them that do better over the history. Modules run on the
/// routes that do best.
#[derive(Debug, Clone, Copy, Default)]
pub struct DipSystem;

/// Multiples of the paper's numbers of segments that are tried first.
const SEGMENT_FACTORS: [u32; 2] = [1, 2];
/// Multiple of the paper's sub-microbatch sizes that is tried with the best of [`SEGMENT_FACTORS`].
const SIZE_FACTOR: f64 = 2.0;

/// Multiples of the paper's rules.
#[derive(Debug, Clone, Copy)]
struct RuleScale {
    segments: u32,
    size: f64,
}

impl System for DipSystem {
    fn name(&self) -> &str {
        "dip"
    }

    fn deploy(&self, inputs: &SystemInputs<'_>) -> Result<Deployment, SystemError> {
        let rules = inputs.planning.partitioner();
        let by_rule = rules.partition()?;
        let mut tried: Vec<Partition> = Vec::new();
        let mut fastest: Fastest<(Deployment, RuleScale)> = Fastest::new();
        let mut consider = |partition: Partition, scale: RuleScale, fastest: &mut Fastest<_>| {
            if !tried.contains(&partition) {
                tried.push(partition.clone());
                let deployment = deployment(inputs, partition);
                let seconds = mean_makespan(inputs, &deployment);
                fastest.offer((deployment, scale), seconds);
            }
        };
        for segments in SEGMENT_FACTORS {
            let scale = RuleScale { segments, size: 1.0 };
            consider(scaled(&rules, &by_rule, scale).partition()?, scale, &mut fastest);
        }
        if let Some(&(_, RuleScale { segments, .. })) = fastest.choice() {
            let scale = RuleScale { segments, size: SIZE_FACTOR };
            consider(scaled(&rules, &by_rule, scale).partition()?, scale, &mut fastest);
        }
        if let Some(&(_, scale)) = fastest.choice() {
            for partition in routed_partitions(&scaled(&rules, &by_rule, scale))? {
                consider(partition, scale, &mut fastest);
            }
        }
        Ok(fastest.found(self.name(), inputs)?.0)
    }
}

/// A partitioner with multiples of the paper's rules.
fn scaled<'a>(rules: &Partitioner<'a>, by_rule: &Partition, scale: RuleScale) -> Partitioner<'a> {
    let mut partitioner = rules.clone().with_segment_factor(scale.segments);
    for module in (0..by_rule.modules.len()).map(ModuleId::from) {
        let instances = f64::from(by_rule.module(module).sub_microbatch) * scale.size;
        partitioner = partitioner.with_sub_microbatch(module, instances.ceil() as u32);
    }
    partitioner
}

fn deployment(inputs: &SystemInputs<'_>, partition: Partition) -> Deployment {
    let modules = inputs.model().modules.iter().enumerate();
    let of_module = |(m, spec): (usize, &ModuleSpec)| {
        let module = ModuleId::from(m);
        let (k, b) = (partition.segments(module), partition.module(module).sub_microbatch);
        let second = partition.module(module).chunks.iter().find(|chunk| chunk.segment.0 == 1);
        let turns = second.is_some_and(|chunk| chunk.rank.0 > 0);
        let route = if turns { ", wave" } else { "" };
        format!("{} in {k} segments, sub-microbatches of {b}{route}", spec.name)
    };
    Deployment {
        choice: modules.map(of_module).collect::<Vec<_>>().join("; "),
        planning: inputs.planning.clone().with_partition(partition).with_weight_split(true),
        memory: vec![MemoryPolicy::Free],
        schedule: Arc::new(Dip),
        evens_out: false,
    }
}
