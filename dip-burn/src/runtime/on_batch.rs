//! A pipeline as an [`Executor`] of plans.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::{ExecError, Executor, Plan, RankId, StageError, Trace};

use super::error::PipelineError;
use super::pipeline::{Pipeline, Update};
use crate::batch::Batch;

/// A pipeline bound to a batch; see [`Pipeline::on`].
pub struct OnBatch<'a, B: Backend> {
    pub(super) pipeline: &'a mut Pipeline<B>,
    pub(super) batch: &'a Arc<Batch>,
    pub(super) update: Option<Update>,
}

impl<B: Backend> Executor for OnBatch<'_, B> {
    fn execute(&mut self, plan: &Plan) -> Result<Trace, ExecError> {
        match self.pipeline.run(plan, self.batch, self.update) {
            Ok(report) => Ok(report.traces.into_iter().next().unwrap_or_default()),
            Err(PipelineError::Exec(error)) => Err(error),
            Err(PipelineError::Rank { rank, what }) => {
                Err(ExecError::Stage { rank, source: StageError::Failed(what) })
            }
            Err(error) => {
                let source = StageError::Failed(error.to_string());
                Err(ExecError::Stage { rank: RankId(0), source })
            }
        }
    }
}
