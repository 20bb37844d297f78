//! Evaluates the model on held-out data, whole and on one device.

use burn::tensor::backend::Backend;
use dip_core::ModuleKind;

use super::Trainer;
use crate::model::WholeModel;
use crate::params::NamedTensors;
use crate::runtime::TensorKind;
use crate::train::agreement::share_tensors;
use crate::train::error::TrainError;
use crate::train::metrics::Sinks;
use crate::train::report::Evaluation;

impl<B: Backend> Trainer<B> {
    /// The whole model, with averaged weights if the run keeps them. All processes must call it.
    ///
    /// # Errors
    /// [`TrainError::Pipeline`] if a rank has failed.
    pub fn whole_model(&mut self) -> Result<WholeModel<B>, TrainError> {
        let weights = self.evaluated_weights()?;
        let weights = share_tensors(&*self.group, weights)?;
        self.load_whole(&weights)
    }

    /// Measures the loss on held-out data and, if `generates`, also makes captions or clips. `None` without held-out data. All
    /// processes must call it. The first process evaluates and sends the loss to the others.
    ///
    /// # Errors
    /// [`TrainError`] if a rank has failed.
    pub fn evaluate(&mut self, generates: bool) -> Result<Option<Evaluation>, TrainError> {
        if self.data.evaluator.is_none() {
            return Ok(None);
        }
        let weights = self.evaluated_weights()?;
        let mut evaluation = Evaluation::new("loss on the first process", f64::NAN);
        let loss = self.group.compute_on_first(|| {
            let whole = self.load_whole(&weights)?;
            if let Some(evaluator) = &self.data.evaluator {
                evaluation = evaluator.evaluate(&whole, &self.config.evaluation, generates)?;
            }
            Ok::<_, TrainError>(evaluation.loss.to_le_bytes().to_vec())
        })?;
        let loss = loss.first_chunk().map_or(f64::NAN, |bytes| f64::from_le_bytes(*bytes));
        Ok(Some(Evaluation { iteration: self.iteration(), loss, ..evaluation }))
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

    /// The weights, or their averages if the run keeps them: all of them on the first process.
    fn evaluated_weights(&mut self) -> Result<NamedTensors, TrainError> {
        let mut weights = self.weights()?;
        weights.extend(self.gather(TensorKind::Averages)?);
        Ok(weights)
    }

    fn load_whole(&self, weights: &NamedTensors) -> Result<WholeModel<B>, TrainError> {
        let (modalities, seed) = (self.modalities.clone(), self.config.seed);
        let mut model = self.model.clone();
        for module in &mut model.modules {
            // Losses of different runs are compared, with and without z-loss.
            if let ModuleKind::Decoder(decoder) = &mut module.kind {
                decoder.z_loss = 0.0;
            }
        }
        let mut whole = WholeModel::with_modalities(&model, modalities, seed, &self.device)?;
        whole.load(weights)?;
        Ok(whole)
    }
}
