//! The decisions of a system, applied to batches.

use std::sync::Arc;

use dip_core::{
    BatchMeta, BuildError, Bytes, Environment, ModuleId, Plan, Schedule, ScheduleError, Strategy,
    TaskGraph,
};
use std::collections::BTreeMap;
use thiserror::Error;

use super::even::even_out;
use super::fixed_memory::FixedMemory;
use crate::partition::PartitionError;
use crate::planning::Planning;

/// A system that cannot train a model.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SystemError {
    /// The model has no partition.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// A stage has no cost.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A batch has no plan.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// No choice of the system fits.
    #[error(
        "system {system:?} finds no choice that fits {memory} of each device; use more ranks or a larger tensor degree"
    )]
    NothingFits {
        /// The system.
        system: String,
        /// Memory of a device.
        memory: Bytes,
    },
}

/// Which memory strategies stages may take.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum MemoryPolicy {
    /// All strategies of the cost model. The schedule chooses for every stage of every batch.
    #[default]
    Free,
    /// One strategy per chunk, by its module and first layer, the same for every batch.
    Fixed(BTreeMap<(ModuleId, u32), Strategy>),
}

/// A system after its decisions: it plans batch by batch.
#[derive(Clone)]
pub struct Deployment {
    /// Model, cluster, costs, partition and weight split.
    pub planning: Planning,
    /// The memory policy, then fallbacks for batches that do not fit, each smaller than the one before.
    pub memory: Vec<MemoryPolicy>,
    /// The schedule of every batch.
    pub schedule: Arc<dyn Schedule>,
    /// True if work moves between the microbatches of a batch until they are equal.
    pub evens_out: bool,
    /// A description of the decisions, for reports.
    pub choice: String,
}

impl Deployment {
    /// The task graph of a batch under a memory policy.
    ///
    /// # Errors
    /// [`BuildError`] if a stage has no cost.
    pub fn graph(&self, memory: &MemoryPolicy, batch: &BatchMeta) -> Result<TaskGraph, BuildError> {
        let even;
        let batch = if self.evens_out {
            even = even_out(self.planning.model(), batch);
            &even
        } else {
            batch
        };
        match memory {
            MemoryPolicy::Free => self.planning.graph(batch),
            MemoryPolicy::Fixed(strategies) => {
                let inner = self.planning.cost().clone();
                let cost = FixedMemory { inner, strategies: strategies.clone() };
                self.planning.clone().with_cost(Arc::new(cost)).graph(batch)
            }
        }
    }

    /// Plans a batch under the first memory policy in which it fits.
    ///
    /// # Errors
    /// [`SystemError`] if the batch fits in none.
    pub fn plan(&self, batch: &BatchMeta, env: &Environment<'_>) -> Result<Plan, SystemError> {
        let mut failure = SystemError::NothingFits {
            system: self.schedule.name().into(),
            memory: self.planning.cluster().device.memory_bytes,
        };
        for memory in &self.memory {
            let graph = self.graph(memory, batch)?;
            match self.schedule.plan(&graph, env) {
                Ok(plan) => return Ok(plan),
                Err(error @ ScheduleError::Infeasible { .. }) => failure = error.into(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(failure)
    }
}
