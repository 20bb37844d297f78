//! A trainer whose backend is chosen at run time.

use dip_burn::Backend;
use dip_burn::train::{
    Evaluation, Inference, IterationReport, MetricSink, Resumed, TrainError, Trainer,
};
use dip_core::Partition;

/// A run that is ready to train, on the device that it names. Programs that use it compile no tensor code themselves.
pub trait Training {
    /// Trains to the end of the run: evaluations, samples, checkpoints and metrics as the run says.
    ///
    /// # Errors
    /// [`TrainError`]; the newest checkpoint stays whole.
    fn run(&mut self, sink: &mut dyn MetricSink) -> Result<(), TrainError>;

    /// Trains on the next batch.
    ///
    /// # Errors
    /// [`TrainError`]; the trainer cannot continue then.
    fn step(&mut self) -> Result<IterationReport, TrainError>;

    /// Loads the newest checkpoint of the run that is whole; `None` if there is no checkpoint.
    ///
    /// # Errors
    /// [`TrainError`] if no checkpoint is whole, or the newest belongs to another run.
    fn resume(&mut self) -> Result<Option<Resumed>, TrainError>;

    /// Measures the loss on held-out data; generates captions or clips, too, if `generates` is set. `None` without such data.
    ///
    /// # Errors
    /// [`TrainError`] if a rank has failed.
    fn evaluate(&mut self, generates: bool) -> Result<Option<Evaluation>, TrainError>;

    /// The model for losses, captions and clips, with averaged weights if the run keeps them. It runs through the pipeline.
    ///
    /// # Errors
    /// [`TrainError`] if a rank has failed.
    fn model(&mut self) -> Result<Box<dyn Inference + '_>, TrainError>;

    /// Completed iterations.
    fn iteration(&self) -> u64;

    /// True at the end of the run.
    fn is_done(&self) -> bool;

    /// The layers of each rank.
    fn partition(&self) -> &Partition;
}

impl<B: Backend> Training for Trainer<B> {
    fn run(&mut self, sink: &mut dyn MetricSink) -> Result<(), TrainError> {
        Self::run(self, sink)
    }

    fn step(&mut self) -> Result<IterationReport, TrainError> {
        Self::step(self)
    }

    fn resume(&mut self) -> Result<Option<Resumed>, TrainError> {
        Self::resume(self)
    }

    fn evaluate(&mut self, generates: bool) -> Result<Option<Evaluation>, TrainError> {
        Self::evaluate(self, generates)
    }

    fn model(&mut self) -> Result<Box<dyn Inference + '_>, TrainError> {
        Ok(Box::new(Self::model(self)?))
    }

    fn iteration(&self) -> u64 {
        Self::iteration(self)
    }

    fn is_done(&self) -> bool {
        Self::is_done(self)
    }

    fn partition(&self) -> &Partition {
        Self::partition(self)
    }
}
