//! The training loop: while a batch trains, the next one is planned and its pixels are decoded.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::backend::Backend;
use dip_core::{
    BatchMeta, ModelSpec, Partition, Plan, PlanSource, PlannedBatch as Planned, Seconds, check_plan,
};

use super::checkpoint::{self, CHECKPOINT_SCHEMA, Checkpoint, RunState};
use super::data::{FedBatch, RunData};
use super::error::TrainError;
use super::loss_scale::LossScale;
use super::metrics::Metrics;
use super::nodes::{Together, fingerprint};
use super::replicas::{self, Deal, Times};
use super::report::{Evaluation, IterationReport, Observer};
use super::throughput::{Throughput, resident_bytes};
use super::{EarlyStop, RunConfig, samples};
use crate::data::SourcePosition;
use crate::model::{InitialWeights, WholeModel};
use crate::params::NamedTensors;
use crate::runtime::nodes::NodeGroup;
use crate::runtime::{Export, Pipeline, PipelineInit, ReplicaWork, StepReport, Update};
use crate::weights::Weights;

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
    /// One device a rank, replica by replica.
    pub devices: Vec<B::Device>,
}

/// Trains a model on a pipeline.
pub struct Trainer<B: Backend> {
    config: RunConfig,
    model: ModelSpec,
    partition: Partition,
    pipeline: Pipeline<B>,
    plans: Box<dyn PlanSource>,
    data: RunData,
    device: B::Device,
    ahead: Option<Ahead>,
    iteration: u64,
    /// Iterations that moved the weights: those with gradients beyond f16 do not, and the learning rate waits for them.
    optimizer_steps: u64,
    early_stop: EarlyStop,
    throughput: Option<Throughput>,
    deal: Option<Deal>,
    loss_scale: LossScale,
    /// Where the data stands behind the last trained batch.
    position: SourcePosition,
    nodes: Together,
}

/// The batch that is planned and decoded at this moment.
struct Ahead {
    batch: FedBatch,
    /// The microbatches of each replica of this node.
    dealt: Vec<Vec<usize>>,
}

impl<B: Backend> Trainer<B> {
    /// Builds the ranks with their weights.
    ///
    /// # Errors
    /// [`TrainError::Pipeline`] where the model, the devices or the threads cannot be had.
    pub fn new(init: TrainerInit<'_, B>) -> Result<Self, TrainError> {
        Self::on_nodes(init, None)
    }

    /// As [`Trainer::new`], beside the trainers of other nodes, which have been given the same run and go through the same steps.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn on_nodes(
        init: TrainerInit<'_, B>,
        nodes: Option<Arc<NodeGroup>>,
    ) -> Result<Self, TrainError> {
        let device = init.devices.first().cloned().unwrap_or_default();
        let weights = init.config.weights.as_ref();
        let weights =
            weights.map(|w| Weights::open(&w.from, init.model)).transpose().map_err(Box::new)?;
        let pipeline_init = PipelineInit {
            model: init.model,
            partition: init.partition,
            devices: init.devices,
            threads_per_rank: init.config.pipeline.threads_per_rank,
            precision: init.config.pipeline.precision,
            start: InitialWeights { seed: init.config.seed, weights: weights.as_ref() },
            optimizer: &init.config.optimizer,
        };
        let pipeline = Pipeline::on_nodes(&pipeline_init, nodes.clone())?;
        Ok(Self {
            config: init.config.clone(),
            model: init.model.clone(),
            partition: init.partition.clone(),
            pipeline,
            plans: init.plans,
            position: init.data.feed.position(),
            data: init.data,
            device,
            ahead: None,
            iteration: 0,
            optimizer_steps: 0,
            early_stop: EarlyStop::default(),
            throughput: None,
            deal: None,
            loss_scale: LossScale::new(init.config.pipeline.precision),
            nodes: Together(nodes),
        })
    }

    /// Has `deal` share the microbatches of every batch between the replicas, instead of in turn.
    pub fn with_dealing(mut self, deal: Deal) -> Self {
        self.deal = Some(deal);
        self
    }

    /// Reports utilisation, too.
    pub fn with_throughput(mut self, throughput: Option<Throughput>) -> Self {
        self.throughput = throughput;
        self
    }

    /// Which rank holds which layers.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// Iterations that are done.
    pub fn iteration(&self) -> u64 {
        self.iteration
    }

    /// The weights, by name.
    ///
    /// # Errors
    /// [`TrainError::Pipeline`] where a rank has failed.
    pub fn weights(&mut self) -> Result<NamedTensors, TrainError> {
        Ok(self.pipeline.export(Export::Parameters)?)
    }

    /// Whether the run is at its end.
    pub fn is_done(&self) -> bool {
        self.iteration >= self.config.iterations
            || self.early_stop.is_over(self.config.evaluation.patience)
    }

    /// Goes on from the newest checkpoint of the run; false where there is none. With several nodes it is that of the first, which
    /// sends it to the others.
    ///
    /// # Errors
    /// [`TrainError`] where the checkpoint cannot be read or belongs to another run.
    pub fn resume(&mut self) -> Result<bool, TrainError> {
        let newest = match self.nodes.is_first() {
            true => checkpoint::list(&self.config.output)?.pop(),
            false => None,
        };
        let found =
            self.nodes.first_gives(|| Ok::<_, TrainError>(vec![newest.is_some().into()]))?;
        if found != [1] {
            return Ok(false);
        }
        let path = newest.unwrap_or_default();
        let file = |name: &str| {
            self.nodes.first_gives(|| Ok::<_, TrainError>(checkpoint::read(&path.join(name))?))
        };
        let checkpoint = checkpoint::parse(&path, file)?;
        self.take(checkpoint).map(|()| true)
    }

    /// Goes on from a checkpoint, which every node reads for itself.
    ///
    /// # Errors
    /// [`TrainError`] where the checkpoint cannot be read or belongs to another run.
    pub fn load(&mut self, path: &Path) -> Result<(), TrainError> {
        self.take(checkpoint::load(path)?)
    }

    fn take(&mut self, checkpoint: Checkpoint<SourcePosition>) -> Result<(), TrainError> {
        let Checkpoint { model, optimizer, state } = checkpoint;
        self.pipeline.import(model, optimizer, state.optimizer_steps)?;
        self.data.feed.restore(&state.data)?;
        (self.position, self.iteration, self.ahead) = (state.data, state.iteration, None);
        self.optimizer_steps = state.optimizer_steps;
        self.early_stop = state.early_stop;
        self.loss_scale = state.loss_scale.unwrap_or(self.loss_scale);
        Ok(())
    }

    /// Writes a checkpoint of everything that is done; with several nodes all take part, and the first writes.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] names the file; [`TrainError::Node`] a node whose weights have become others.
    pub fn save(&mut self) -> Result<PathBuf, TrainError> {
        let model = self.pipeline.export(Export::Parameters)?;
        self.nodes.agree_on(self.iteration, &model)?;
        let optimizer = self.export_shared(Export::Moments)?;
        if !self.nodes.is_first() {
            return Ok(checkpoint::path_of(&self.config.output, self.iteration));
        }
        let state = RunState {
            schema: CHECKPOINT_SCHEMA.into(),
            iteration: self.iteration,
            optimizer_steps: self.optimizer_steps,
            early_stop: self.early_stop,
            loss_scale: Some(self.loss_scale),
            data: self.position.clone(),
        };
        let checkpoint = Checkpoint { model, optimizer, state };
        let keep = self.config.checkpoint.keep;
        Ok(checkpoint::save(&self.config.output, &checkpoint, keep)?)
    }

    /// Tensors that replicas may share among them, whole on the first node.
    fn export_shared(&mut self, what: Export) -> Result<NamedTensors, TrainError> {
        let own = self.pipeline.export(what)?;
        if self.config.optimizer.shard { self.nodes.gathered(own) } else { Ok(own) }
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
        let planned = self.take_plans(now.dealt.len())?;
        if self.iteration + 1 < self.config.iterations {
            self.ahead = Some(self.fetch()?);
        }
        let FedBatch { meta, position, tokens, content, .. } = now.batch;
        let splits = planned.iter().map(|p| p.split.clone()).collect();
        let mut content = content()?;
        // Pictures that turn out broken mute their documents, which only the node that has them knows.
        content.trained_tokens = self.nodes.sum(content.trained_tokens)?;
        let batches = replicas::batches(content, &now.dealt, splits);
        let work: Vec<ReplicaWork<'_>> = planned
            .iter()
            .zip(&batches)
            .map(|(planned, batch)| ReplicaWork { plan: &planned.plan, batch })
            .collect();
        let o = &self.config.optimizer;
        let learning_rate = o.rate(self.optimizer_steps, self.config.iterations);
        let loss_scale = self.loss_scale.value();
        let update = Update { learning_rate, clip_norm: o.clip_norm, loss_scale };
        let step = self.pipeline.run_replicas(&work, Some(update))?;
        if !step.loss.is_finite() {
            return Err(TrainError::Diverged { iteration: self.iteration, loss: step.loss });
        }
        let moved = step.gradient_norm.is_finite();
        self.optimizer_steps += u64::from(moved);
        if !self.loss_scale.learn(moved) {
            let (iteration, norm) = (self.iteration, step.gradient_norm);
            return Err(TrainError::Gradients { iteration, norm });
        }
        let elapsed_s = Seconds(start.elapsed().as_secs_f64());
        // The plans of the replicas are searched one behind the other.
        self.plans.measured(elapsed_s / planned.len() as f64);
        let report =
            self.report((&meta, tokens), &planned, step, Pace { learning_rate, elapsed_s });
        self.position = position;
        self.iteration += 1;
        Ok(report)
    }

    /// The plan of every replica.
    fn take_plans(&mut self, count: usize) -> Result<Vec<Planned>, TrainError> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let planned = self.plans.take()?;
            self.check(&planned.plan)?;
            all.push(planned);
        }
        Ok(all)
    }

    fn report(
        &self,
        (meta, tokens): (&BatchMeta, u64),
        planned: &[Planned],
        step: StepReport,
        pace: Pace,
    ) -> IterationReport {
        let plans: Vec<&Plan> = planned.iter().map(|p| &p.plan).collect();
        let times = Times::of(&step.traces, &plans);
        let Pace { learning_rate, elapsed_s } = pace;
        IterationReport {
            iteration: self.iteration,
            loss: step.loss,
            learning_rate,
            gradient_norm: step.gradient_norm,
            tokens,
            images: meta.microbatches.iter().map(|m| u64::from(m.images)).sum(),
            clips: meta.microbatches.iter().map(|m| m.clips.len() as u64).sum(),
            microbatches: meta.microbatches.len(),
            tokens_per_s: tokens as f64 / elapsed_s.0.max(f64::MIN_POSITIVE),
            mfu: self.throughput.as_ref().and_then(|t| t.utilisation(meta, elapsed_s)),
            elapsed_s,
            makespan_s: times.makespan,
            predicted_s: times.predicted,
            critical_path_s: times.critical_path,
            bubble_ratio: times.bubble_ratio,
            stall_s: planned.iter().map(|p| p.stall).sum(),
            search_s: planned.iter().map(|p| p.search).sum(),
            gap: times.gap,
            fallback: planned.iter().any(|p| p.fallback),
            skipped: self.data.feed.skipped(),
            peak_bytes: replicas::peak_bytes(&plans, &step.peak_activation),
            peak_activation_bytes: step.peak_activation,
            resident_bytes: resident_bytes(),
        }
    }

    /// The model in one piece, with averaged weights where the run keeps them. With several nodes all take part, and the first has
    /// it whole.
    ///
    /// # Errors
    /// [`TrainError::Pipeline`] where a rank has failed.
    pub fn whole_model(&mut self) -> Result<WholeModel<B>, TrainError> {
        let weights = self.judged_weights()?;
        self.whole(&weights)
    }

    /// What is evaluated: the weights, or their averages where the run keeps them.
    fn judged_weights(&mut self) -> Result<NamedTensors, TrainError> {
        let mut weights = self.pipeline.export(Export::Parameters)?;
        weights.extend(self.export_shared(Export::Averages)?);
        Ok(weights)
    }

    fn whole(&self, weights: &NamedTensors) -> Result<WholeModel<B>, TrainError> {
        let mut whole = WholeModel::init(&self.model, self.config.seed, &self.device)?;
        whole.load(weights)?;
        Ok(whole)
    }

    /// Measures the loss on held-out data, and has captions or clips generated where `generates` is set. `None` where there is
    /// no such data. With several nodes all take part, and the first tells the others the loss alone.
    ///
    /// # Errors
    /// [`TrainError`] where a rank has failed.
    pub fn evaluate(&mut self, generates: bool) -> Result<Option<Evaluation>, TrainError> {
        if self.data.judge.is_empty() {
            return Ok(None);
        }
        let weights = self.judged_weights()?;
        let mut found = Evaluation::new("loss on the first node", f64::NAN);
        let loss = self.nodes.first_gives(|| {
            let whole = self.whole(&weights)?;
            found = self.data.judge.evaluate(&whole, &self.config.evaluation, generates)?;
            Ok::<_, TrainError>(found.loss.to_le_bytes().to_vec())
        })?;
        let loss = loss.first_chunk().map_or(f64::NAN, |bytes| f64::from_le_bytes(*bytes));
        Ok(Some(Evaluation { iteration: self.iteration, loss, ..found }))
    }

    /// Trains to the end: evaluations, samples, checkpoints and `metrics.jsonl` as the run says. With several nodes the first
    /// writes and observes; [`NodeGroup::take_part`] tells the others of an error.
    ///
    /// # Errors
    /// [`TrainError`]; the newest checkpoint stays whole.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let mut ignored = ();
        let observer = if self.nodes.is_first() { observer } else { &mut ignored };
        if self.nodes.count() > 1 {
            let weights = self.pipeline.export(Export::Parameters)?;
            self.nodes.agree_on(self.iteration, &weights)?;
        }
        let open = || Metrics::open(&self.config.output, self.iteration, &self.config.metrics);
        let mut metrics = self.nodes.is_first().then(open).transpose()?;
        if self.iteration == 0 {
            self.judge(metrics.as_mut(), observer)?;
        }
        while !self.is_done() {
            let report = self.step()?;
            if let Some(metrics) = &mut metrics {
                metrics.iteration(&report)?;
            }
            observer.iteration(&report);
            // Judged before it is saved: a run that goes on from the checkpoint has its evaluation already.
            if self.is_due(self.config.evaluation.every) {
                self.judge(metrics.as_mut(), observer)?;
            }
            if self.is_due(self.config.checkpoint.every) {
                observer.saved(&self.save()?);
            }
        }
        if self.iteration < self.config.iterations {
            observer.stopped(self.iteration, &self.early_stop);
        }
        // No node leaves while another still waits for it.
        Ok(self.nodes.agree("the end of the run", || self.iteration.to_string())?)
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

    /// Evaluates; the metrics are those of the first node.
    fn judge(
        &mut self,
        metrics: Option<&mut Metrics>,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let at_end = self.is_done();
        let Some(mut evaluation) = self.evaluate(at_end)? else { return Ok(()) };
        self.early_stop.record(evaluation.loss);
        if self.is_done() && !at_end {
            // The evaluation that ends the run has the captions of an end.
            evaluation = self.evaluate(true)?.unwrap_or(evaluation);
        }
        if let Some(metrics) = metrics {
            metrics.evaluation(&evaluation)?;
            samples::write(&self.config.output.join("samples"), &evaluation.samples)?;
        }
        observer.evaluated(&evaluation);
        Ok(())
    }

    /// Whether something that comes every so many iterations, and at the end, comes now.
    fn is_due(&self, every: u64) -> bool {
        self.is_done() || (every > 0 && self.iteration.is_multiple_of(every))
    }

    /// Reads the next batch, deals it to the replicas of all nodes, and has the share of this node planned and decoded in the
    /// background.
    fn fetch(&mut self) -> Result<Ahead, TrainError> {
        let own = self.pipeline.replicas();
        let (before, count) = (self.nodes.number() * own, self.nodes.count() * own);
        let mut dealt = Vec::new();
        let batch = self.data.feed.next_batch(&mut |meta| {
            dealt = match &self.deal {
                Some(deal) => deal(meta),
                None => replicas::in_turn(meta, count),
            };
            dealt.iter().skip(before).take(own).flatten().copied().collect()
        })?;
        if !replicas::is_complete(&dealt, &batch.meta, count) || dealt.iter().any(Vec::is_empty) {
            let microbatches = batch.meta.microbatches.len();
            return Err(TrainError::Dealing { microbatches, replicas: count });
        }
        self.nodes.agree(&format!("the data of batch {}", batch.meta.iteration), || {
            let text = serde_json::to_vec(&(&batch.meta.microbatches, &batch.position, &dealt));
            fingerprint([text.expect("plain data has a JSON form").as_slice()])
        })?;
        let dealt: Vec<_> = dealt.drain(before..).take(own).collect();
        for own in &dealt {
            self.plans.submit(replicas::meta_of(&batch.meta, own))?;
        }
        Ok(Ahead { batch, dealt })
    }
}

/// How fast an iteration was, and how far it stepped.
struct Pace {
    learning_rate: f64,
    elapsed_s: Seconds,
}
