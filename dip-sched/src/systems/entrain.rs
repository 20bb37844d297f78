//! Entrain's idea: one static placement, and microbatches made equal by moving work between them.

use std::sync::Arc;

use dip_core::Partition;

use super::deployment::{Deployment, SystemError};
use super::megatron::virtual_stages;
use super::nnscaler::mean;
use super::trial::fastest_recompute;
use super::{Recompute, System, SystemInputs};
use crate::schedules::Interleaved;

/// Contiguous chunks balanced for the mean microbatch, interleaved 1F1B, and batches whose microbatches have been made equal
/// (Jang and Chowdhury, arXiv 2605.27918: excess work of heavy samples is deferred to other microbatches of the iteration).
///
/// Batch metadata does not tell samples apart, so this is the ideal of that method: images, sounds, clips and documents move freely
/// between the microbatches of a batch. The number of chunks and the recomputation of each module are the fastest over the history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Entrain;

impl System for Entrain {
    fn name(&self) -> &str {
        "entrain"
    }

    fn deploy(&self, inputs: &SystemInputs<'_>) -> Result<Deployment, SystemError> {
        let layers: u32 = inputs.model().modules.iter().map(|m| m.layers).sum();
        let partitioner = inputs.planning.partitioner().with_representative(mean(inputs));
        let partitions = virtual_stages(layers, inputs.planning.ranks())
            .map(|chunks| partitioner.contiguous(chunks))
            .collect::<Result<Vec<_>, _>>()?;
        let deploy = |partition: Partition, settings: &[Recompute]| Deployment {
            choice: Recompute::describe(inputs.model(), settings),
            memory: Recompute::fallbacks(&partition, settings),
            planning: inputs.planning.clone().with_partition(partition).with_weight_split(false),
            schedule: Arc::new(Interleaved),
            evens_out: true,
        };
        fastest_recompute(self.name(), inputs, partitions, &deploy)
    }
}
