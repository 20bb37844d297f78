//! A pipeline as an [`Executor`] of plans.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::{ExecError, Executor, Plan, RankId, StageError, Trace};

use super::{Pipeline, Update};
use crate::batch::Batch;
use crate::runtime::error::PipelineError;

/// A pipeline with one replica, bound to a batch. Runs plans of that batch.
pub struct BatchExecutor<'a, B: Backend> {
    pipeline: &'a mut Pipeline<B>,
    batch: &'a Arc<Batch>,
    update: Option<Update>,
}

impl<B: Backend> Pipeline<B> {
    /// This pipeline as an executor of plans for `batch`. With an update, each run ends with an optimiser step.
    pub fn executor<'a>(
        &'a mut self,
        batch: &'a Arc<Batch>,
        update: Option<Update>,
    ) -> BatchExecutor<'a, B> {
        BatchExecutor { pipeline: self, batch, update }
    }
}

impl<B: Backend> Executor for BatchExecutor<'_, B> {
    fn execute(&mut self, plan: &Plan) -> Result<Trace, ExecError> {
        match self.pipeline.run(plan, self.batch, self.update) {
            Ok(report) => Ok(report.traces.into_iter().next().unwrap_or_default()),
            Err(PipelineError::Exec(error)) => Err(error),
            Err(PipelineError::Rank { rank, what }) => {
                Err(ExecError::Stage { rank, source: StageError::Failed(what.into()) })
            }
            Err(error) => {
                let source = StageError::Failed(error.into());
                Err(ExecError::Stage { rank: RankId(0), source })
            }
        }
    }
}
