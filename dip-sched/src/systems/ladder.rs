//! The ladder of the paper's ablation: from Megatron-LM to this system, one part at a time.

use dip_core::{Environment, Partition, Plan, Schedule, ScheduleError, TaskGraph};

use super::deployment::{Deployment, Memory, SystemError};
use super::trial::best_recompute;
use super::{DipSystem, Megatron, Recompute, Setting, System};
use crate::partition::Partitioner;
use crate::schedules::{Interleaved, Reordered};

/// A step of the ladder; each has the parts of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
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
    /// The search of this crate, with weight gradients apart.
    Search,
}

/// All steps.
pub const LADDER: [Step; 6] = [
    Step::Megatron,
    Step::Partitioner,
    Step::Interleaving,
    Step::Reordering,
    Step::Memory,
    Step::Search,
];

impl System for Step {
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

    fn deploy(&self, setting: &Setting<'_>) -> Result<Deployment, SystemError> {
        let modality_aware = || {
            let partitioner = Partitioner::new(setting.model, setting.ranks, setting.cost);
            let deploy = |partition: Partition, settings: &[Recompute]| Deployment {
                choice: Recompute::describe(setting.model, settings),
                memory: Recompute::fallbacks(&partition, settings),
                partition,
                weight_split: false,
                schedule: Box::new(Interleaved),
            };
            best_recompute(self.name(), setting, vec![partitioner.partition()?], &deploy)
        };
        Ok(match self {
            Self::Megatron => Megatron.deploy(setting)?,
            Self::Partitioner => modality_aware()?,
            Self::Interleaving => Deployment { schedule: Box::new(DualQueue), ..modality_aware()? },
            Self::Reordering => {
                Deployment { schedule: Box::new(Reordered::Mcts), ..modality_aware()? }
            }
            Self::Memory => Deployment {
                schedule: Box::new(Reordered::Mcts),
                memory: vec![Memory::Free],
                choice: "memory chosen for every batch".into(),
                ..modality_aware()?
            },
            Self::Search => DipSystem.deploy(setting)?,
        })
    }
}

/// Dual-queue interleaving of the microbatches in the order in which they come.
struct DualQueue;

impl Schedule for DualQueue {
    fn name(&self) -> &str {
        "dip-dfs"
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        // The first sequence in depth-first order is that of the batch.
        let once = Environment { budget: dip_core::Budget::Iterations(1), ..*env };
        Reordered::DepthFirst.plan(graph, &once)
    }
}
