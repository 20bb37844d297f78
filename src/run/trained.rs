//! A trained model whose backend is chosen at run time: losses, captions and clips.

use std::path::PathBuf;
use std::sync::Arc;

use dip_burn::Backend;
use dip_burn::data::Picture;
use dip_burn::train::{Evaluation, RunConfig, SampledClip, TrainError, TrainedInit, TrainedModel};
use dip_core::ModelSpec;
use dip_emu::AnalyticCost;
use dip_sched::{PlacementError, Planning};

use super::{OnBackend, RunError, on_device, this_machine};

/// A trained model that is not loaded yet.
#[derive(Debug, Clone)]
pub struct TrainedRun {
    /// The run that trained it.
    pub config: RunConfig,
    /// The model, to which [`RunConfig::adapt`] has been applied.
    pub model: ModelSpec,
    /// Its checkpoint; without one it has the weights that the run starts from.
    pub checkpoint: Option<PathBuf>,
}

/// A trained model on the device that its run names. Programs that use it compile no tensor code themselves.
pub trait Trained {
    /// The loss on the held-out data of the run; if `generates`, also captions or clips. `None` without such data.
    ///
    /// # Errors
    /// [`TrainError`] if the data cannot be read, or a rank has failed.
    fn evaluate(&mut self, generates: bool) -> Result<Option<Evaluation>, TrainError>;

    /// A caption for each picture. `question` is what a model for conversations is asked.
    ///
    /// # Errors
    /// [`TrainError`] if the model sees no pictures, or a rank has failed.
    fn caption(
        &mut self,
        pictures: &[Picture],
        question: Option<&str>,
    ) -> Result<Vec<String>, TrainError>;

    /// A clip for each caption. The noise follows from the seed.
    ///
    /// # Errors
    /// [`TrainError`] if the model makes no clips, or a rank has failed.
    fn generate(&mut self, captions: &[String], seed: u64) -> Result<Vec<SampledClip>, TrainError>;

    /// Iterations that it was trained for; 0 without a checkpoint.
    fn iteration(&self) -> u64;
}

impl TrainedRun {
    /// Loads the model on the ranks of its run. Layers are placed by rule: nothing is measured and nothing is planned.
    ///
    /// # Errors
    /// [`RunError`] names the field, file or device, and the remedy.
    pub fn open(self) -> Result<Box<dyn Trained>, RunError> {
        let (device, ranks) = (self.config.pipeline.device, self.config.pipeline.ranks);
        on_device(device, ranks, self)?
    }
}

impl OnBackend for TrainedRun {
    type Output = Result<Box<dyn Trained>, RunError>;

    fn call<B: Backend>(self, devices: Vec<B::Device>) -> Self::Output {
        let Self { config, model, checkpoint } = &self;
        let cluster = this_machine(None);
        let cost = Arc::new(AnalyticCost::new(model, &cluster));
        let placed = Planning::on_ranks(model, &cluster, cost, config.pipeline.ranks);
        let placed = placed.map_err(PlacementError::from)?;
        let (partition, checkpoint) = (placed.partition(), checkpoint.as_deref());
        let init = TrainedInit { config, model, partition, devices, checkpoint };
        Ok(Box::new(TrainedModel::<B>::open(init)?))
    }
}

impl<B: Backend> Trained for TrainedModel<B> {
    fn evaluate(&mut self, generates: bool) -> Result<Option<Evaluation>, TrainError> {
        Self::evaluate(self, generates)
    }

    fn caption(
        &mut self,
        pictures: &[Picture],
        question: Option<&str>,
    ) -> Result<Vec<String>, TrainError> {
        Self::caption(self, pictures, question)
    }

    fn generate(&mut self, captions: &[String], seed: u64) -> Result<Vec<SampledClip>, TrainError> {
        Self::generate(self, captions, seed)
    }

    fn iteration(&self) -> u64 {
        Self::iteration(self)
    }
}
