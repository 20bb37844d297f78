//! The planner of a training run: metadata of a batch in, its plan out (paper section 4).

use std::collections::VecDeque;
use std::sync::Arc;

use dip_core::{
    BatchMeta, BatchSplit, ClusterSpec, CostModel, Environment, GraphInput, ModelSpec, Partition,
    Plan, PlanError, PlanSource, PlannedBatch, Schedule, Seconds, TaskGraph, build_graph,
};

use super::planner::{Planner, PlannerConfig, PlannerStats};
use crate::partition::split_batch;

/// What plans of a run are made from, beside its batches.
#[derive(Clone)]
pub struct PlanInputs {
    /// The model.
    pub model: ModelSpec,
    /// The cluster; its device memory is the limit of every rank.
    pub cluster: ClusterSpec,
    /// Where the layers are.
    pub partition: Partition,
    /// What stages cost.
    pub cost: Arc<dyn CostModel>,
    /// Whether weight gradients are tasks of their own.
    pub weight_split: bool,
}

impl PlanInputs {
    /// The instances of every sub-microbatch of a batch.
    fn split(&self, batch: &BatchMeta) -> BatchSplit {
        split_batch(&self.model, &self.partition, batch)
    }

    fn graph(&self, batch: &BatchMeta, split: &BatchSplit) -> Result<TaskGraph, PlanError> {
        let input = GraphInput {
            model: &self.model,
            cluster: &self.cluster,
            partition: &self.partition,
            batch,
            split,
            cost: &*self.cost,
            weight_split: self.weight_split,
        };
        Ok(build_graph(&input)?)
    }

    /// Seconds of the optimiser on the rank that has most to update.
    pub fn busiest_update(&self) -> Seconds {
        let mut updates = vec![Seconds::ZERO; self.partition.ranks as usize];
        for (rank, chunk) in self.partition.queries(&self.model) {
            updates[rank.index()] += self.cost.update(&chunk);
        }
        updates.into_iter().fold(Seconds::ZERO, Seconds::max)
    }

    /// What `schedule` makes of a batch.
    ///
    /// # Errors
    /// [`PlanError`] where the batch has no costs or no plan.
    pub fn plan(
        &self,
        batch: &BatchMeta,
        schedule: &dyn Schedule,
        environment: &Environment,
    ) -> Result<Plan, PlanError> {
        let graph = self.graph(batch, &self.split(batch))?;
        Ok(schedule.plan(&graph, environment)?)
    }
}

/// Cuts batches, builds their task graphs and plans them ahead on a thread of its own.
pub struct BatchPlanner {
    inputs: Arc<PlanInputs>,
    planner: Planner,
    submitted: VecDeque<(BatchMeta, BatchSplit)>,
}

impl BatchPlanner {
    /// A planner with its thread.
    pub fn new(inputs: PlanInputs, config: PlannerConfig) -> Self {
        Self { inputs: Arc::new(inputs), planner: config.start(), submitted: VecDeque::new() }
    }

    /// What it has done so far.
    pub fn stats(&self) -> PlannerStats {
        self.planner.stats()
    }
}

impl PlanSource for BatchPlanner {
    fn submit(&mut self, batch: BatchMeta) -> Result<(), PlanError> {
        let split = self.inputs.split(&batch);
        let (inputs, meta, slices) = (self.inputs.clone(), batch.clone(), split.clone());
        self.planner.submit(batch.iteration, move || inputs.graph(&meta, &slices))?;
        self.submitted.push_back((batch, split));
        Ok(())
    }

    fn take(&mut self) -> Result<PlannedBatch, PlanError> {
        let planned = self.planner.take()?;
        let (batch, split) = self.submitted.pop_front().ok_or(PlanError::Empty)?;
        Ok(PlannedBatch {
            batch,
            split,
            plan: planned.plan,
            stall: planned.stall,
            search: planned.search,
            fallback: planned.fallback,
        })
    }

    fn measured(&mut self, iteration: Seconds) {
        self.planner.measured(iteration);
    }
}
