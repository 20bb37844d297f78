//! A trained model for losses, captions and clips: a pipeline without planner, optimiser steps or training data.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::{ModelSpec, Partition};

use super::config::RunConfig;
use super::data::{Captioner, ClipSampler, RunData};
use super::error::TrainError;
use super::report::{Evaluation, SampledClip};
use super::state::RunState;
use super::trainer::open_weights;
use crate::checkpoint::CheckpointReader;
use crate::data::{Picture, SourcePosition};
use crate::inference::Inference;
use crate::model::InitialWeights;
use crate::runtime::{Pipeline, PipelineInit};

/// The parts of a trained model.
#[derive(Debug)]
pub struct TrainedInit<'a, B: Backend> {
    /// The run that trained it.
    pub config: &'a RunConfig,
    /// The model.
    pub model: &'a ModelSpec,
    /// The layers of each rank.
    pub partition: &'a Partition,
    /// One device for each rank.
    pub devices: Vec<B::Device>,
    /// The folder of its checkpoint; without one it has the weights that the run starts from.
    pub checkpoint: Option<&'a Path>,
}

/// A trained model. If its run keeps averages of the weights, they are used.
pub struct TrainedModel<B: Backend> {
    config: RunConfig,
    model: ModelSpec,
    pipeline: Pipeline<B>,
    iteration: u64,
}

impl<B: Backend> TrainedModel<B> {
    /// Builds the ranks with their weights.
    ///
    /// # Errors
    /// [`TrainError`] if the weights or the checkpoint cannot be read, or do not fit the model.
    pub fn open(init: TrainedInit<'_, B>) -> Result<Self, TrainError> {
        let TrainedInit { config, model, partition, devices, checkpoint } = init;
        let weights = config.weights.as_ref().map(|w| open_weights(w, model));
        let weights = weights.transpose().map_err(Box::new)?;
        let pipeline = PipelineInit::new(model, partition, devices)
            .with_threads_per_rank(config.pipeline.threads_per_rank)
            .with_weights(InitialWeights { seed: config.seed, weights: weights.as_ref() })
            .with_optimizer(config.optimizer.clone());
        let mut pipeline = Pipeline::new(&pipeline)?;
        let mut iteration = 0;
        if let Some(path) = checkpoint {
            let reader = CheckpointReader::open(path)?;
            reader.verify(0, 1)?;
            let state: RunState<SourcePosition> = reader.state()?;
            iteration = state.iteration;
            pipeline.read(&Arc::new(reader), state.optimizer_steps)?;
        }
        let evaluation = config.evaluation_of_model()?;
        let config = RunConfig { evaluation, ..config.clone() };
        Ok(Self { config, model: model.clone(), pipeline, iteration })
    }

    /// The loss on the held-out data of the run; if `generates`, also captions or clips. `None` without such data.
    ///
    /// # Errors
    /// [`TrainError`] if the data cannot be read, or a rank has failed.
    pub fn evaluate(&mut self, generates: bool) -> Result<Option<Evaluation>, TrainError> {
        let RunConfig { evaluation, seed, .. } = &self.config;
        let data = RunData::open(&self.model, &self.config.data_of_model()?, evaluation, *seed)?;
        let Some(evaluator) = &data.evaluator else { return Ok(None) };
        let mut model = self.pipeline.forwards()?;
        let found = evaluator.evaluate(&mut model, evaluation, generates)?;
        Ok(Some(Evaluation { iteration: self.iteration, ..found }))
    }

    /// A caption for each picture. `question` is what a model for conversations is asked.
    ///
    /// # Errors
    /// [`TrainError`] if the model sees no pictures, or a rank has failed.
    pub fn caption(
        &mut self,
        pictures: &[Picture],
        question: Option<&str>,
    ) -> Result<Vec<String>, TrainError> {
        let captioner = Captioner::open(&self.model, &self.config.data_of_model()?)?;
        let prompts = pictures.iter().map(|picture| captioner.ask(picture.clone(), question));
        let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        let how = captioner.continuation(&self.config.evaluation, self.config.seed);
        let texts = self.pipeline.forwards()?.generate(&prompts, &how)?;
        Ok(texts.iter().map(|tokens| captioner.text(tokens)).collect())
    }

    /// A clip for each caption, as long as the run's samples.
    ///
    /// # Errors
    /// [`TrainError`] if the model makes no clips, or a rank has failed.
    pub fn generate(
        &mut self,
        captions: &[String],
        seed: u64,
    ) -> Result<Vec<SampledClip>, TrainError> {
        let config = &self.config;
        let sampler = ClipSampler::open(&self.model, &config.data_of_model()?, &config.evaluation)?;
        let wanted = captions.iter().map(|c| (c.clone(), sampler.usual_grid(&config.evaluation)));
        let wanted: Vec<_> = wanted.collect();
        let mut model = self.pipeline.forwards()?;
        Ok(sampler.samples(&mut model, &wanted, &config.evaluation, seed)?)
    }

    /// Iterations that it was trained for; 0 without a checkpoint.
    pub fn iteration(&self) -> u64 {
        self.iteration
    }
}
