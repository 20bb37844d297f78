//! The ladder of the paper's ablation: from Megatron-LM to this system, one part at a time.

use std::sync::Arc;

use dip_core::{Budget, Environment, Partition, Plan, Schedule, ScheduleError, TaskGraph};

use super::deployment::{Deployment, MemoryPolicy, SystemError};
use super::trial::fastest_recompute;
use super::{DipSystem, Megatron, Recompute, System, SystemInputs};
use crate::schedules::{Interleaved, Reordered};

/// A step of the ladder. Each step has the parts of the steps before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LadderStep {
    /// Megatron-LM.
    Megatron,
    /// The modality-aware partition with sub-microbatches, in the order of a virtual pipeline.
    Partitioner,
    /// Dual-queue interleaving.
    Interleaving,
    /// Segment reordering by Monte-Carlo tree search.
    Reordering,
    /// Memory strategies for every stage of every batch.
    Memory,
    /// The search of this crate, with split weight gradients.
    Search,
}

/// All steps.
pub const LADDER: [LadderStep; 6] = [
    LadderStep::Megatron,
    LadderStep::Partitioner,
    LadderStep::Interleaving,
    LadderStep::Reordering,
    LadderStep::Memory,
    LadderStep::Search,
];

impl System for LadderStep {
    fn name(&self) -> &str {
        match self {
            Self::Megatron => "megatron",
            Self::Partitioner => "+ partitioner",
            Self::Interleaving => "+ interleaving",
            Self::Reordering => "+ reordering",
            Self::Memory => "+ memory",
            Self::Search => "dip",
        }
    }

    fn deploy(&self, inputs: &SystemInputs<'_>) -> Result<Deployment, SystemError> {
        let modality_aware = || modality_aware(self.name(), inputs);
        Ok(match self {
            Self::Megatron => Megatron.deploy(inputs)?,
            Self::Partitioner => modality_aware()?,
            Self::Interleaving => Deployment { schedule: Arc::new(DualQueue), ..modality_aware()? },
            Self::Reordering => {
                Deployment { schedule: Arc::new(Reordered::Mcts), ..modality_aware()? }
            }
            Self::Memory => Deployment {
                schedule: Arc::new(Reordered::Mcts),
                memory: vec![MemoryPolicy::Free],
                choice: "memory chosen for every batch".into(),
                ..modality_aware()?
            },
            Self::Search => DipSystem.deploy(inputs)?,
        })
    }
}

/// The modality-aware partition with the fastest recomputation, in the order of a virtual pipeline.
fn modality_aware(system: &str, inputs: &SystemInputs<'_>) -> Result<Deployment, SystemError> {
    let deploy = |partition: Partition, settings: &[Recompute]| Deployment {
        choice: Recompute::describe(inputs.model(), settings),
        memory: Recompute::fallbacks(&partition, settings),
        planning: inputs.planning.clone().with_partition(partition).with_weight_split(false),
        schedule: Arc::new(Interleaved),
        evens_out: false,
    };
    let partition = inputs.planning.partitioner().partition()?;
    fastest_recompute(system, inputs, vec![partition], &deploy)
}

/// Dual-queue interleaving with the microbatches in the order of the batch.
struct DualQueue;

impl Schedule for DualQueue {
    fn name(&self) -> &str {
        Reordered::DepthFirst.name()
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        // The first sequence in depth-first order is the order of the batch.
        let once = Environment { budget: Budget::Iterations(1), ..*env };
        Reordered::DepthFirst.plan(graph, &once)
    }
}
