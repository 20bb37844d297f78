//! The training loop: while a batch trains, the next one is planned and its pixels are decoded.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::backend::Backend;
use dip_core::{ModelSpec, Partition, Plan, PlanError, PlanSource, Seconds, check_plan};
use thiserror::Error;

use super::RunConfig;
use super::checkpoint::{self, CHECKPOINT_SCHEMA, Checkpoint, CheckpointError, RunState};
use super::data::{FedBatch, RunData};
use super::metrics::Metrics;
use super::report::{Evaluation, IterationReport, Observer};
use super::samples;
use crate::data::{DataError, SourcePosition};
use crate::model::{ModelError, WholeModel};
use crate::params::ParameterError;
use crate::runtime::{Export, Pipeline, PipelineError, PipelineInit, Update};

/// What a trainer is made of.
pub struct TrainerInit<'a, B: Backend> {
    /// The run.
    pub config: &'a RunConfig,
    /// Its model.
    pub model: &'a ModelSpec,
    /// Which rank holds which layers; the one that `plans` are made for.
    pub partition: &'a Partition,
    /// Where plans come from.
    pub plans: Box<dyn PlanSource>,
    /// What it trains on.
    pub data: RunData,
    /// One device a rank.
    pub devices: Vec<B::Device>,
}

/// A run that cannot begin or go on.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The planner.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A rank.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A checkpoint, or the metrics file.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Weights do not fit the model.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// A plan does not pass the checker.
    #[error(
        "the plan of iteration {iteration} has {violations} violations, the first: {first}; correct the schedule"
    )]
    InvalidPlan {
        /// The iteration.
        iteration: u64,
        /// How many.
        violations: usize,
        /// One of them.
        first: String,
    },
    /// The loss is no number any more.
    #[error(
        "the loss of iteration {iteration} is {loss}; lower optimizer.learning_rate, or clip with optimizer.clip_norm"
    )]
    Diverged {
        /// The iteration.
        iteration: u64,
        /// Its loss.
        loss: f64,
    },
}

/// Trains a model on a pipeline.
pub struct Trainer<B: Backend> {
    config: RunConfig,
    model: ModelSpec,
    pipeline: Pipeline<B>,
    plans: Box<dyn PlanSource>,
    data: RunData,
    device: B::Device,
    /// The batch that is planned and decoded at this moment.
    ahead: Option<FedBatch>,
    iteration: u64,
    /// Where the data stands behind the last trained batch.
    position: SourcePosition,
}

impl<B: Backend> Trainer<B> {
    /// Builds the ranks with their weights.
    ///
    /// # Errors
    /// [`TrainError::Pipeline`] where the model, the devices or the threads cannot be had.
    pub fn new(init: TrainerInit<'_, B>) -> Result<Self, TrainError> {
        let device = init.devices.first().cloned().unwrap_or_default();
        let pipeline = Pipeline::new(&PipelineInit {
            model: init.model,
            partition: init.partition,
            devices: init.devices,
            threads_per_rank: init.config.pipeline.threads_per_rank,
            seed: init.config.seed,
            optimizer: &init.config.optimizer,
        })?;
        Ok(Self {
            config: init.config.clone(),
            model: init.model.clone(),
            pipeline,
            plans: init.plans,
            position: init.data.feed.position(),
            data: init.data,
            device,
            ahead: None,
            iteration: 0,
        })
    }

    /// Iterations that are done.
    pub fn iteration(&self) -> u64 {
        self.iteration
    }

    /// Whether the run is at its end.
    pub fn is_done(&self) -> bool {
        self.iteration >= self.config.iterations
    }

    /// Goes on from the newest checkpoint of the run; false where there is none.
    ///
    /// # Errors
    /// [`TrainError`] where the checkpoint cannot be read or belongs to another run.
    pub fn resume(&mut self) -> Result<bool, TrainError> {
        match checkpoint::list(&self.config.output)?.pop() {
            Some(path) => self.load(&path).map(|()| true),
            None => Ok(false),
        }
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// [`TrainError`] where the checkpoint cannot be read or belongs to another run.
    pub fn load(&mut self, path: &Path) -> Result<(), TrainError> {
        let Checkpoint { model, optimizer, state } = checkpoint::load::<SourcePosition>(path)?;
        self.pipeline.import(model, optimizer, state.optimizer_steps)?;
        self.data.feed.restore(&state.data)?;
        (self.position, self.iteration, self.ahead) = (state.data, state.iteration, None);
        Ok(())
    }

    /// Writes a checkpoint of everything that is done.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] names the file.
    pub fn save(&mut self) -> Result<PathBuf, TrainError> {
        let checkpoint = Checkpoint {
            model: self.pipeline.export(Export::Parameters)?,
            optimizer: self.pipeline.export(Export::Moments)?,
            state: RunState {
                schema: CHECKPOINT_SCHEMA.into(),
                iteration: self.iteration,
                optimizer_steps: self.iteration,
                data: self.position.clone(),
            },
        };
        let keep = self.config.checkpoint.keep;
        Ok(checkpoint::save(&self.config.output, &checkpoint, keep)?)
    }

    /// Trains on the next batch, while the one behind it is planned and decoded.
    ///
    /// # Errors
    /// [`TrainError`]; the trainer cannot go on then.
    pub fn step(&mut self) -> Result<IterationReport, TrainError> {
        let start = Instant::now();
        let now = match self.ahead.take() {
            Some(ahead) => ahead,
            None => self.fetch()?,
        };
        let planned = self.plans.take()?;
        if self.iteration + 1 < self.config.iterations {
            self.ahead = Some(self.fetch()?);
        }
        self.check(&planned.plan)?;
        let batch = Arc::new((now.content)(planned.split)?);
        let o = &self.config.optimizer;
        let learning_rate = o.rate(self.iteration, self.config.iterations);
        let update = Update { learning_rate, clip_norm: o.clip_norm };
        let step = self.pipeline.run(&planned.plan, &batch, Some(update))?;
        if !step.loss.is_finite() {
            return Err(TrainError::Diverged { iteration: self.iteration, loss: step.loss });
        }
        let elapsed_s = Seconds(start.elapsed().as_secs_f64());
        self.plans.measured(elapsed_s);
        let report = IterationReport {
            iteration: self.iteration,
            loss: step.loss,
            learning_rate,
            gradient_norm: step.gradient_norm,
            tokens: now.tokens,
            images: now.meta.microbatches.iter().map(|m| u64::from(m.images)).sum(),
            clips: now.meta.microbatches.iter().map(|m| m.clips.len() as u64).sum(),
            elapsed_s,
            makespan_s: step.trace.makespan(),
            predicted_s: planned.plan.predicted.makespan_s,
            critical_path_s: step.trace.critical_path(&planned.plan.graph).unwrap_or_default(),
            bubble_ratio: step.trace.bubble_ratio(),
            stall_s: planned.stall,
            search_s: planned.search,
            gap: planned.plan.gap(),
            fallback: planned.fallback,
            skipped: self.data.feed.skipped(),
            peak_activation_bytes: step.peak_activation,
        };
        self.position = now.position;
        self.iteration += 1;
        Ok(report)
    }

    /// Measures the loss on held-out data, and has captions or clips generated where `generates` is set. `None` where there is
    /// no such data. The model has the averaged weights, where the run keeps them.
    ///
    /// # Errors
    /// [`TrainError`] where a rank has failed.
    pub fn evaluate(&mut self, generates: bool) -> Result<Option<Evaluation>, TrainError> {
        if self.data.judge.is_empty() {
            return Ok(None);
        }
        let averaged = self.config.optimizer.ema_decay > 0.0;
        let weights = if averaged { Export::Averages } else { Export::Parameters };
        let mut whole = WholeModel::<B>::init(&self.model, self.config.seed, &self.device)?;
        whole.load(&self.pipeline.export(weights)?)?;
        let config = &self.config.evaluation;
        let evaluation = self.data.judge.evaluate(&whole, config, generates)?;
        Ok(Some(Evaluation { iteration: self.iteration, ..evaluation }))
    }

    /// Trains to the end: evaluations, samples, checkpoints and `metrics.jsonl` as the run says.
    ///
    /// # Errors
    /// [`TrainError`]; the newest checkpoint stays whole.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let mut metrics = Metrics::open(&self.config.output, self.iteration)?;
        if self.iteration == 0 {
            self.judge(&mut metrics, observer)?;
        }
        while !self.is_done() {
            let report = self.step()?;
            metrics.iteration(&report)?;
            observer.iteration(&report);
            // Judged before it is saved: a run that goes on from the checkpoint has its evaluation already.
            if self.is_due(self.config.evaluation.every) {
                self.judge(&mut metrics, observer)?;
            }
            if self.is_due(self.config.checkpoint.every) {
                observer.saved(&self.save()?);
            }
        }
        Ok(())
    }

    /// Ranks that follow an invalid plan would wait for each other for ever.
    fn check(&self, plan: &Plan) -> Result<(), TrainError> {
        let violations = check_plan(plan);
        match violations.first() {
            None => Ok(()),
            Some(first) => Err(TrainError::InvalidPlan {
                iteration: self.iteration,
                violations: violations.len(),
                first: first.to_string(),
            }),
        }
    }

    fn judge(
        &mut self,
        metrics: &mut Metrics,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        if let Some(evaluation) = self.evaluate(self.is_done())? {
            metrics.evaluation(&evaluation)?;
            samples::write(&self.config.output.join("samples"), &evaluation.samples)?;
            observer.evaluated(&evaluation);
        }
        Ok(())
    }

    /// Whether something that comes every so many iterations, and at the end, comes now.
    fn is_due(&self, every: u64) -> bool {
        self.is_done() || (every > 0 && self.iteration.is_multiple_of(every))
    }

    /// The next batch, which is planned in the background.
    fn fetch(&mut self) -> Result<FedBatch, TrainError> {
        let batch = self.data.feed.next_batch()?;
        self.plans.submit(batch.meta.clone())?;
        Ok(batch)
    }
}
