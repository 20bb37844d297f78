//! The training loop (paper section 4): while a batch trains, the next one is planned and its pixels are decoded.

mod checkpoints;
mod evaluation;
mod inputs;
mod plans;
mod prefetch;
mod progress;

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::backend::Backend;
use dip_core::{
    MeasuredIteration, ModelSpec, Partition, Plan, PlanSource, PlannedBatch, Seconds, Trace,
    TraceFile,
};

pub use self::checkpoints::Resumed;
use self::prefetch::{PrefetchedBatch, TrainingBatch};
use self::progress::RunProgress;
use super::assignment::{self, Assign, IterationTimes};
use super::config::{OnError, RunConfig, WeightsConfig};
use super::data::RunData;
use super::error::TrainError;
use super::load::{microbatch_padding, microbatch_patches};
use super::lock::OutputLock;
use super::metrics::{MetricSink, Sinks, file_sinks};
use super::report::IterationReport;
use super::stop::StopRequest;
use super::throughput::{Throughput, resident_bytes};
use crate::batch::Batch;
use crate::model::{InitialWeights, Modalities};
use crate::params::NamedTensors;
use crate::runtime::{
    Connections, Pipeline, PipelineInit, ProcessGroup, ReplicaWork, StepReport, Update,
};
use crate::weights::{Weights, WeightsError};

/// The parts of a trainer.
pub struct TrainerInit<'a, B: Backend> {
    /// The run.
    pub config: &'a RunConfig,
    /// Its model.
    pub model: &'a ModelSpec,
    /// The layers of each rank. Plans must be made for this partition.
    pub partition: &'a Partition,
    /// The planner.
    pub plans: Box<dyn PlanSource>,
    /// The training data and the evaluation.
    pub data: RunData,
    /// One device for each rank of this process, replica by replica.
    pub devices: Vec<B::Device>,
    /// The connections between ranks, replicas and processes; [`Connections::default`] is one process.
    pub connections: Connections<B>,
    /// The modalities that can be trained; [`Modalities::default`] has the built-in ones.
    pub modalities: Modalities<B>,
}

/// Trains a model on a pipeline.
pub struct Trainer<B: Backend> {
    config: RunConfig,
    model: ModelSpec,
    partition: Partition,
    pipeline: Pipeline<B>,
    plans: Box<dyn PlanSource>,
    data: RunData,
    group: Arc<dyn ProcessGroup>,
    assign: Option<Assign>,
    throughput: Option<Throughput>,
    sinks: Vec<Box<dyn MetricSink>>,
    prefetched: Option<PrefetchedBatch>,
    progress: RunProgress,
    stop: StopRequest,
    lock: Option<OutputLock>,
}

impl<B: Backend> Trainer<B> {
    /// Builds the ranks with their weights.
    ///
    /// # Errors
    /// [`TrainError`] if the weights cannot be read or the pipeline cannot be built.
    pub fn new(init: TrainerInit<'_, B>) -> Result<Self, TrainError> {
        let TrainerInit { config, model, partition, plans, data, devices, .. } = init;
        let (connections, modalities) = (init.connections, init.modalities);
        let weights = config.weights.as_ref().map(|w| open_weights(w, model));
        let weights = weights.transpose().map_err(Box::new)?;
        let group = connections.group.clone();
        let pipeline = PipelineInit::new(model, partition, devices)
            .with_threads_per_rank(config.pipeline.threads_per_rank)
            .with_precision(config.pipeline.precision)
            .with_weights(InitialWeights { seed: config.seed, weights: weights.as_ref() })
            .with_optimizer(config.optimizer.clone())
            .with_modalities(modalities)
            .with_connections(connections);
        let trainer = Self {
            config: config.clone(),
            model: model.clone(),
            partition: partition.clone(),
            pipeline: Pipeline::new(&pipeline)?,
            plans,
            progress: RunProgress::new(config.pipeline.precision, data.loader.position()),
            data,
            group,
            assign: None,
            throughput: None,
            sinks: file_sinks(config),
            prefetched: None,
            stop: StopRequest::default(),
            lock: None,
        };
        trainer.accept_plans();
        Ok(trainer)
    }

    /// Assigns the microbatches of every batch to replicas with `assign`, instead of in turn.
    #[must_use]
    pub fn with_assignment(mut self, assign: Assign) -> Self {
        self.assign = Some(assign);
        self
    }

    /// Also reports utilisation.
    #[must_use]
    pub fn with_throughput(mut self, throughput: Option<Throughput>) -> Self {
        self.throughput = throughput;
        self
    }

    /// Also reports to `sink`, after the files of the run.
    #[must_use]
    pub fn with_sink(mut self, sink: Box<dyn MetricSink>) -> Self {
        self.sinks.push(sink);
        self
    }

    /// Stops after an iteration, with a checkpoint, if `stop` is requested in any process.
    #[must_use]
    pub fn with_stop(mut self, stop: StopRequest) -> Self {
        self.stop = stop;
        self
    }

    /// Keeps the lock of the output folder, which [`run`](Self::run) takes otherwise.
    #[must_use]
    pub fn with_lock(mut self, lock: OutputLock) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Which rank holds which layers.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// Completed iterations.
    pub fn iteration(&self) -> u64 {
        self.progress.iteration
    }

    /// The weights, by name: all of them on the first process. All processes must call it.
    ///
    /// # Errors
    /// [`TrainError::Pipeline`] if a rank has failed.
    pub fn weights(&mut self) -> Result<NamedTensors, TrainError> {
        self.gather_weights()
    }

    /// True if the run has ended.
    pub fn is_done(&self) -> bool {
        self.progress.iteration >= self.config.iterations
            || self.progress.early_stop.is_over(self.config.evaluation.patience)
    }

    /// Trains to the end, or until it is asked to stop, with the evaluations, samples, checkpoints and metrics of the run. With several
    /// processes, the first one reports.
    ///
    /// # Errors
    /// [`TrainError`]. The newest checkpoint stays valid.
    pub fn run(&mut self, sink: &mut dyn MetricSink) -> Result<(), TrainError> {
        if self.group.is_first() && self.lock.is_none() {
            self.lock = Some(OutputLock::acquire(&self.config.output)?);
        }
        let mut own = std::mem::take(&mut self.sinks);
        let mut sinks = Sinks::default();
        if self.group.is_first() {
            own.iter_mut().for_each(|sink| sinks.add(&mut **sink));
            sinks.add(sink);
        }
        let result = self.run_with(sinks);
        self.sinks = own;
        result
    }

    fn run_with(&mut self, mut sinks: Sinks<'_>) -> Result<(), TrainError> {
        self.agree_on_weights()?;
        sinks.start(self.iteration())?;
        if self.iteration() == 0 {
            self.evaluate_into(&mut sinks)?;
        }
        let mut stops = self.stops()?;
        while !self.is_done() && !stops {
            let report = self.step()?;
            sinks.iteration(&report)?;
            stops = self.stops()?;
            // Evaluates before saving: a run that resumes from the checkpoint already has its evaluation.
            if self.is_due(self.config.evaluation.every) {
                self.evaluate_into(&mut sinks)?;
            }
            if self.is_due(self.config.checkpoint.every) || stops {
                self.save_into(&mut sinks, stops)?;
            }
        }
        if self.is_done() && self.iteration() < self.config.iterations {
            sinks.early_stop(self.iteration(), &self.progress.early_stop)?;
        }
        sinks.end()?;
        // No process leaves while another still waits for it.
        Ok(self.group.agree("the end of the run", || self.iteration().to_string())?)
    }

    /// True if any process was asked to stop.
    fn stops(&self) -> Result<bool, TrainError> {
        Ok(self.group.sum(self.stop.is_requested().into())? > 0)
    }

    /// Saves and reports. The last checkpoint of a run must be written: at its end, or if it `stops`.
    fn save_into(&mut self, sinks: &mut Sinks<'_>, stops: bool) -> Result<(), TrainError> {
        let is_last = self.is_done() || stops;
        let goes_on = self.config.checkpoint.on_error == OnError::Continue && !is_last;
        match self.save() {
            Ok(path) => sinks.checkpoint(&path)?,
            Err(TrainError::Checkpoint(error)) if goes_on => sinks.checkpoint_failed(&error)?,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// True if an event is due that comes every `every` iterations and at the end.
    fn is_due(&self, every: u64) -> bool {
        self.is_done() || (every > 0 && self.iteration().is_multiple_of(every))
    }

    /// Trains on the next batch, while the batch after it is planned and decoded.
    ///
    /// # Errors
    /// [`TrainError`]. The trainer cannot continue after it.
    pub fn step(&mut self) -> Result<IterationReport, TrainError> {
        let start = Instant::now();
        let batch = self.take_batch()?;
        let planned = self.take_plans(&batch)?;
        self.prefetch()?;
        let batch = self.wait_for_content(batch, &planned)?;
        let update = self.next_update();
        let timed = self.config.pipeline.is_timed(self.iteration());
        self.pipeline.time_by_device(timed);
        let step = self.pipeline.run_replicas(&work(&planned, &batch.replicas), Some(update))?;
        if let Err(error) = self.progress.count(&step) {
            let work = work(&planned, &batch.replicas);
            let place = self.pipeline.first_non_finite(&work, update.loss_scale);
            return Err(error.at(place));
        }
        let elapsed_s = Seconds(start.elapsed().as_secs_f64());
        let runs = self.runs_to_learn(&planned, &step.traces, timed);
        // The plans of the replicas that this process plans for are searched one after another.
        let led = self.pipeline.replicas().iter().filter(|&&replica| self.leads(replica)).count();
        let planning_time = elapsed_s / led.max(1) as f64;
        let notices = self.plans.measured(&MeasuredIteration { planning_time, runs: &runs });
        let pace = Pace { update, elapsed_s, timed, notices };
        let report = self.report(&batch, &planned, step, pace);
        self.progress.finish_iteration(batch.position);
        Ok(report)
    }

    /// The plans that this process has made, and when their stages ran, if stages were timed.
    fn runs_to_learn<'p>(
        &self,
        planned: &'p [PlannedBatch],
        traces: &'p [Trace],
        timed: bool,
    ) -> Vec<(&'p Plan, &'p Trace)> {
        let replicas = self.pipeline.replicas().iter();
        let runs = replicas.zip(planned.iter().zip(traces));
        let made = runs.filter(|&(&replica, _)| timed && self.leads(replica));
        made.map(|(_, (planned, trace))| (&planned.plan, trace)).collect()
    }

    fn next_update(&self) -> Update {
        let optimizer = &self.config.optimizer;
        Update {
            learning_rate: optimizer.rate(self.progress.optimizer_steps, self.config.iterations),
            clip_norm: optimizer.clip_norm,
            loss_scale: self.progress.loss_scale.value(),
        }
    }

    fn report(
        &self,
        batch: &TrainingBatch,
        planned: &[PlannedBatch],
        step: StepReport,
        pace: Pace,
    ) -> IterationReport {
        let plans: Vec<&Plan> = planned.iter().map(|p| &p.plan).collect();
        let times = IterationTimes::of(&step.traces, &plans);
        let Pace { update, elapsed_s, timed, notices } = pace;
        let TrainingBatch { meta, tokens, .. } = batch;
        let data = self.data.loader.report();
        IterationReport {
            iteration: self.iteration(),
            loss: step.loss,
            learning_rate: update.learning_rate,
            gradient_norm: step.gradient_norm,
            tokens: *tokens,
            patches: microbatch_patches(&self.model, meta),
            padding: microbatch_padding(&self.model, meta, *tokens),
            images: meta.microbatches.iter().map(|m| u64::from(m.images.len())).sum(),
            clips: meta.microbatches.iter().map(|m| m.clips.len() as u64).sum(),
            microbatches: meta.microbatches.len(),
            tokens_per_s: *tokens as f64 / elapsed_s.0.max(f64::MIN_POSITIVE),
            mfu: self.throughput.as_ref().and_then(|t| t.utilisation(meta, elapsed_s)),
            elapsed_s,
            timed,
            makespan_s: times.makespan,
            predicted_s: planned.iter().map(|p| p.expected).fold(Seconds::ZERO, Seconds::max),
            critical_path_s: times.critical_path,
            bubble_ratio: times.bubble_ratio,
            stall_s: planned.iter().map(|p| p.stall).sum(),
            search_s: planned.iter().map(|p| p.search).sum(),
            gap: times.gap,
            fallback: planned.iter().any(|p| p.fallback),
            skipped: data.skipped.total(),
            data,
            peak_bytes: assignment::peak_bytes(&plans, &step.peak_activation),
            peak_activation_bytes: step.peak_activation,
            resident_bytes: resident_bytes(),
            notices,
            timelines: self.timelines(&plans, step.traces, step.elapsed),
        }
    }

    /// The timelines of the iteration, if the run keeps them.
    fn timelines(&self, plans: &[&Plan], traces: Vec<Trace>, elapsed_s: Seconds) -> Vec<TraceFile> {
        let iteration = self.iteration();
        if !self.config.metrics.traces(iteration) {
            return Vec::new();
        }
        let replicas = (0..).zip(plans.iter().zip(traces));
        let timeline = |(replica, (plan, trace)): (u32, (&&Plan, Trace))| TraceFile {
            iteration,
            replica,
            elapsed_s,
            plan: (*plan).clone(),
            trace,
        };
        replicas.map(timeline).collect()
    }
}

/// The times and the optimiser step of an iteration.
struct Pace {
    update: Update,
    elapsed_s: Seconds,
    timed: bool,
    notices: Vec<String>,
}

/// The initial weights, with adapters if the run starts from some.
pub(super) fn open_weights(
    config: &WeightsConfig,
    model: &ModelSpec,
) -> Result<Weights, WeightsError> {
    let weights = Weights::open(&config.from, model)?;
    match &config.adapter {
        Some(adapter) => weights.with_adapter(adapter, &config.from, model),
        None => Ok(weights),
    }
}

/// Each replica's plan and batch.
fn work<'a>(planned: &'a [PlannedBatch], batches: &'a [Arc<Batch>]) -> Vec<ReplicaWork<'a>> {
    let work = |(planned, batch): (&'a PlannedBatch, _)| ReplicaWork { plan: &planned.plan, batch };
    planned.iter().zip(batches).map(work).collect()
}
