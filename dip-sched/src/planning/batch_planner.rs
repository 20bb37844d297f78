//! The planner of a training run: metadata of a batch in, its plan out (paper section 4).

use std::collections::VecDeque;
use std::sync::Arc;

use dip_core::{BatchMeta, PlanError, PlanSource, PlannedBatch, Seconds};

use super::Planning;
use super::planner::{Planner, PlannerConfig, PlannerStats};

/// Builds the task graphs of batches and plans them ahead of training, on a thread of its own.
pub struct BatchPlanner {
    planning: Arc<Planning>,
    planner: Planner,
    submitted: VecDeque<BatchMeta>,
}

impl BatchPlanner {
    /// Starts the planner and its thread.
    pub fn new(planning: Planning, config: PlannerConfig) -> Self {
        Self { planning: Arc::new(planning), planner: config.start(), submitted: VecDeque::new() }
    }

    /// Plans, fallbacks and waiting time so far.
    pub fn stats(&self) -> PlannerStats {
        self.planner.stats()
    }
}

impl PlanSource for BatchPlanner {
    fn submit(&mut self, batch: BatchMeta) -> Result<(), PlanError> {
        let (planning, meta) = (self.planning.clone(), batch.clone());
        self.planner.submit(batch.iteration, move || Ok(planning.graph(&meta)?))?;
        self.submitted.push_back(batch);
        Ok(())
    }

    fn take(&mut self) -> Result<PlannedBatch, PlanError> {
        let planned = self.planner.take()?;
        let batch = self.submitted.pop_front().ok_or(PlanError::Empty)?;
        Ok(PlannedBatch {
            split: self.planning.split(&batch),
            batch,
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
