//! The progress of a run: the part of a checkpoint beside its tensors.

use crate::data::SourcePosition;
use crate::model::Precision;
use crate::runtime::StepReport;
use crate::train::EarlyStop;
use crate::train::error::TrainError;
use crate::train::loss_scale::LossScale;
use crate::train::state::{RunFacts, RunState};

/// The progress of a run.
pub(super) struct RunProgress {
    /// Completed iterations.
    pub iteration: u64,
    /// Iterations that changed the weights. An iteration whose gradients overflow f16 does not count, also for the learning rate.
    pub optimizer_steps: u64,
    pub early_stop: EarlyStop,
    pub loss_scale: LossScale,
    /// Position of the loader after the last trained batch.
    pub position: SourcePosition,
}

impl RunProgress {
    /// A run that starts at `position`.
    pub fn new(precision: Precision, position: SourcePosition) -> Self {
        Self {
            iteration: 0,
            optimizer_steps: 0,
            early_stop: EarlyStop::default(),
            loss_scale: LossScale::new(precision),
            position,
        }
    }

    /// Counts the optimiser step of an iteration and adapts the loss scale to its gradients.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] or [`TrainError::Gradients`] if the run cannot continue.
    pub fn count(&mut self, step: &StepReport) -> Result<(), TrainError> {
        let iteration = self.iteration;
        if !step.loss.is_finite() {
            return Err(TrainError::Diverged { iteration, loss: step.loss, place: None });
        }
        let is_finite = step.gradient_norm.is_finite();
        self.optimizer_steps += u64::from(is_finite);
        if !self.loss_scale.adapt(is_finite) {
            return Err(TrainError::Gradients { iteration, norm: step.gradient_norm, place: None });
        }
        Ok(())
    }

    /// Ends an iteration whose batch ends at `position`.
    pub fn finish_iteration(&mut self, position: SourcePosition) {
        self.position = position;
        self.iteration += 1;
    }

    /// The state that a checkpoint keeps.
    pub fn to_state(&self, run: RunFacts) -> RunState<SourcePosition> {
        RunState {
            run,
            iteration: self.iteration,
            optimizer_steps: self.optimizer_steps,
            early_stop: self.early_stop,
            loss_scale: self.loss_scale,
            data: self.position.clone(),
        }
    }

    /// Goes on from the state of a checkpoint.
    pub fn restore(&mut self, state: RunState<SourcePosition>) {
        self.iteration = state.iteration;
        self.optimizer_steps = state.optimizer_steps;
        self.early_stop = state.early_stop;
        self.loss_scale = state.loss_scale;
        self.position = state.data;
    }
}
