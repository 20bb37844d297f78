//! The planner of a training run: metadata of a batch in, its plan out (paper section 4).

use std::collections::VecDeque;
use std::sync::Arc;

use dip_core::{
    BatchMeta, BatchSplit, ClusterSpec, CostModel, GraphInput, ModelSpec, Partition, PlanError,
    PlanSource, PlannedBatch, Seconds, build_graph,
};

use crate::partition::split_batch;
use crate::planner::{Planner, PlannerConfig, PlannerStats};

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
        let split = split_batch(&self.inputs.model, &self.inputs.partition, &batch);
        let (inputs, meta, slices) = (self.inputs.clone(), batch.clone(), split.clone());
        self.planner.submit(batch.iteration, move || {
            let input = GraphInput {
                model: &inputs.model,
                cluster: &inputs.cluster,
                partition: &inputs.partition,
                batch: &meta,
                split: &slices,
                cost: &*inputs.cost,
                weight_split: inputs.weight_split,
            };
            Ok(build_graph(&input)?)
        })?;
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
