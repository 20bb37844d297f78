//! Megatron-LM with encoders on ranks of their own, as its MIMO models place them.

use std::sync::Arc;

use dip_core::{ModuleId, Partition, Schedule};

use super::deployment::{Deployment, SystemError};
use super::optimus::backbone;
use super::trial::fastest_recompute;
use super::{Recompute, System, SystemInputs};
use crate::schedules::{Interleaved, OneFOneB};

/// The numbers of chunks per rank of the backbone that are tried.
const VIRTUAL: [u32; 3] = [1, 2, 4];
/// Most numbers of encoder ranks that are tried: those whose stages come closest to the backbone's.
const ENCODER_RANKS: usize = 3;

/// Encoders on the first ranks, the backbone on the others, in the order of 1F1B, or interleaved over several chunks of the backbone. The
/// number of encoder ranks, of chunks and the recomputation of each module are the fastest over the history.
#[derive(Debug, Clone, Copy, Default)]
pub struct MegatronMimo;

impl System for MegatronMimo {
    fn name(&self) -> &str {
        "megatron-mimo"
    }

    fn deploy(&self, inputs: &SystemInputs<'_>) -> Result<Deployment, SystemError> {
        let (backbone, _) = backbone(inputs.model());
        let mut partitions: Vec<(f64, Vec<Partition>)> = Vec::new();
        for encoder_ranks in 1..inputs.planning.ranks() {
            let place = |chunks| {
                let partitioner = inputs.planning.partitioner();
                partitioner.separated(backbone, encoder_ranks, chunks).ok()
            };
            let placed: Vec<_> = VIRTUAL.into_iter().filter_map(place).collect();
            if let Some(first) = placed.first() {
                partitions.push((longest(inputs, first)?, placed));
            }
        }
        partitions.sort_by(|a, b| a.0.total_cmp(&b.0));
        let partitions: Vec<_> =
            partitions.into_iter().take(ENCODER_RANKS).flat_map(|p| p.1).collect();
        let deploy = |partition: Partition, settings: &[Recompute]| {
            let chunks = partition.segments(backbone);
            let schedule: Arc<dyn Schedule> =
                if chunks > 1 { Arc::new(Interleaved) } else { Arc::new(OneFOneB) };
            Deployment {
                choice: describe(inputs, &partition, backbone, settings),
                memory: Recompute::fallbacks(&partition, settings),
                planning: inputs
                    .planning
                    .clone()
                    .with_partition(partition)
                    .with_weight_split(false),
                schedule,
                evens_out: false,
            }
        };
        fastest_recompute(self.name(), inputs, partitions, &deploy)
    }
}

/// The seconds of the busiest rank over the history.
fn longest(inputs: &SystemInputs<'_>, partition: &Partition) -> Result<f64, SystemError> {
    let planning = inputs.planning.clone().with_partition(partition.clone());
    let mut ranks = vec![0.0; planning.ranks() as usize];
    for batch in inputs.history {
        let loads = planning.rank_loads(batch).map_err(crate::partition::PartitionError::from)?;
        for load in loads {
            ranks.iter_mut().zip(load).for_each(|(rank, seconds)| *rank += seconds);
        }
    }
    Ok(ranks.into_iter().fold(0.0, f64::max))
}

/// `encoders on 1 rank, language on 3 in 2 chunks a rank; vision keeps all, language recomputes 2/8`.
fn describe(
    inputs: &SystemInputs<'_>,
    partition: &Partition,
    backbone: ModuleId,
    settings: &[Recompute],
) -> String {
    let first = partition.module(backbone).chunks.iter().map(|chunk| chunk.rank.0).min();
    let encoder_ranks = first.unwrap_or(0);
    format!(
        "encoders on {encoder_ranks} ranks, {} on {} in {} chunks a rank; {}",
        inputs.model().modules[backbone.index()].name,
        partition.ranks - encoder_ranks,
        partition.segments(backbone),
        Recompute::describe(inputs.model(), settings)
    )
}
