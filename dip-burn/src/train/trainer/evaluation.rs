//! Evaluates the model on held-out data, through the pipeline that trains it.

use burn::tensor::backend::Backend;

use super::Trainer;
use crate::runtime::ForwardPipeline;
use crate::train::error::TrainError;
use crate::train::metrics::Sinks;
use crate::train::report::Evaluation;

impl<B: Backend> Trainer<B> {
    /// The model for forwards alone, with averaged weights if the run keeps them. All processes must call it.
    ///
    /// # Errors
    /// [`TrainError::Pipeline`] if a rank has failed.
    pub fn model(&mut self) -> Result<ForwardPipeline<'_, B>, TrainError> {
        Ok(self.pipeline.forwards()?)
    }

    /// Measures the loss on held-out data and, if `generates`, also makes captions or clips. `None` without held-out data. All
    /// processes must call it, and get the same.
    ///
    /// # Errors
    /// [`TrainError`] if a rank has failed.
    pub fn evaluate(&mut self, generates: bool) -> Result<Option<Evaluation>, TrainError> {
        let iteration = self.iteration();
        let Some(evaluator) = &self.data.evaluator else { return Ok(None) };
        let mut model = self.pipeline.forwards()?;
        let evaluation = evaluator.evaluate(&mut model, &self.config.evaluation, generates)?;
        Ok(Some(Evaluation { iteration, ..evaluation }))
    }

    /// Evaluates, reports, and checks for early stopping. The last evaluation of a run also generates.
    pub(super) fn evaluate_into(&mut self, sinks: &mut Sinks<'_>) -> Result<(), TrainError> {
        let at_end = self.is_done();
        let Some(mut evaluation) = self.evaluate(at_end)? else { return Ok(()) };
        self.progress.early_stop.record(evaluation.loss);
        if self.is_done() && !at_end {
            evaluation = self.evaluate(true)?.unwrap_or(evaluation);
        }
        Ok(sinks.evaluation(&evaluation)?)
    }
}
