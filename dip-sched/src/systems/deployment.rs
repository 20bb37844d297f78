//! What a system has decided, applied to batches.

use std::collections::BTreeMap;

use dip_core::{
    BatchMeta, BuildError, Bytes, ChunkQuery, CostError, CostModel, Environment, GraphInput,
    ModuleId, Partition, Plan, RankId, Schedule, ScheduleError, Seconds, StageCost, StageQuery,
    Strategy, TaskGraph, Workload, build_graph,
};
use thiserror::Error;

use super::Setting;
use crate::partition::{PartitionError, split_batch};

/// A system that cannot train a model.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SystemError {
    /// No partition.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// A stage has no cost.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// No plan.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Nothing that the system may choose fits.
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

/// What stages may do with their activations.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Memory {
    /// Whatever the cost model offers; the schedule chooses for every stage of every batch.
    #[default]
    Free,
    /// One strategy a chunk, by its module and first layer, the same for every batch.
    Fixed(BTreeMap<(ModuleId, u32), Strategy>),
}

/// A system in place: it plans batch by batch.
pub struct Deployment {
    /// Where the layers are.
    pub partition: Partition,
    /// The memory choice, and those that follow where a batch does not fit, each smaller than the one before.
    pub memory: Vec<Memory>,
    /// Whether weight gradients are tasks of their own.
    pub weight_split: bool,
    /// The order of every batch.
    pub schedule: Box<dyn Schedule>,
    /// What was chosen, for reports.
    pub choice: String,
}

impl Deployment {
    /// The task graph of a batch under one of the memory choices.
    ///
    /// # Errors
    /// [`BuildError`] where a stage has no cost.
    pub fn graph(
        &self,
        setting: &Setting<'_>,
        memory: &Memory,
        batch: &BatchMeta,
    ) -> Result<TaskGraph, BuildError> {
        let split = split_batch(setting.model, &self.partition, batch);
        let fixed;
        let cost: &dyn CostModel = match memory {
            Memory::Free => setting.cost,
            Memory::Fixed(strategies) => {
                fixed = FixedMemory { inner: setting.cost, strategies };
                &fixed
            }
        };
        build_graph(&GraphInput {
            model: setting.model,
            cluster: setting.cluster,
            partition: &self.partition,
            batch,
            split: &split,
            cost,
            weight_split: self.weight_split,
        })
    }

    /// The plan of a batch, under the first memory choice in which it fits.
    ///
    /// # Errors
    /// [`SystemError`] where the batch fits in none.
    pub fn plan(
        &self,
        setting: &Setting<'_>,
        batch: &BatchMeta,
        env: &Environment<'_>,
    ) -> Result<Plan, SystemError> {
        let mut failure = SystemError::NothingFits {
            system: self.schedule.name().into(),
            memory: setting.cluster.device.memory_bytes,
        };
        for memory in &self.memory {
            let graph = self.graph(setting, memory, batch)?;
            match self.schedule.plan(&graph, env) {
                Ok(plan) => return Ok(plan),
                Err(error @ ScheduleError::Infeasible { .. }) => failure = error.into(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(failure)
    }
}

/// Costs under strategies that are fixed for every chunk.
pub(super) struct FixedMemory<'a> {
    pub(super) inner: &'a dyn CostModel,
    pub(super) strategies: &'a BTreeMap<(ModuleId, u32), Strategy>,
}

impl CostModel for FixedMemory<'_> {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        self.inner.stage(query)
    }

    fn transfer(&self, from: RankId, to: RankId, bytes: Bytes) -> Seconds {
        self.inner.transfer(from, to, bytes)
    }

    fn static_bytes(&self, chunk: &ChunkQuery<'_>) -> Bytes {
        self.inner.static_bytes(chunk)
    }

    fn working_bytes(&self, chunk: &ChunkQuery<'_>, workload: Workload) -> Bytes {
        self.inner.working_bytes(chunk, workload)
    }

    fn update(&self, chunk: &ChunkQuery<'_>) -> Seconds {
        self.inner.update(chunk)
    }

    fn candidates(
        &self,
        chunk: &ChunkQuery<'_>,
        workload: Workload,
    ) -> Result<Vec<StageCost>, CostError> {
        let keep = Strategy::keep();
        let strategy = self.strategies.get(&(chunk.module, chunk.layers.start)).unwrap_or(&keep);
        Ok(vec![self.inner.stage(&StageQuery { chunk: chunk.clone(), workload, strategy })?])
    }
}
