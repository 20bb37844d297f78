//! The coordinator of the ranks: starts their threads, gives them plans, and collects their measurements.

mod build;
mod connect;
mod executor;
mod forward;
mod replies;
mod step;

pub use executor::BatchExecutor;
pub use forward::{ForwardItem, ForwardPipeline};
pub use step::{ReplicaWork, StepReport, Update};

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use burn::tensor::backend::Backend;
use dip_core::{ExecError, ModelSpec, Partition, Plan, Seconds, StageError, Trace, compile};

use super::connections::Connections;
use super::error::PipelineError;
use super::link::{RankLink, ReplicaRanks};
use super::worker::{Iteration, RankCommand, RankReport, RankUpdate, Reply, TensorKind};
use crate::batch::Batch;
use crate::checkpoint::{CheckpointError, CheckpointReader, ShardFile};
use crate::model::Modalities;
use crate::params::NamedTensors;
use crate::stage::NonFinite;

/// The ranks of a pipeline and its replicas, each a thread of this process.
pub struct Pipeline<B: Backend> {
    /// The ranks of the first replica, then of the second, and so on.
    workers: Vec<RankThread<B>>,
    /// Ranks of one replica.
    ranks: usize,
    /// Device of each worker.
    devices: Vec<B::Device>,
    connections: Connections<B>,
    model: ModelSpec,
    partition: Partition,
    modalities: Modalities<B>,
    replies: Receiver<(usize, Reply)>,
    /// True if every stage waits until its device has run it.
    timed: bool,
}

/// How an iteration runs.
#[derive(Debug, Clone, Copy)]
struct Mode {
    update: Option<Update>,
    loss_scale: f64,
    /// True to fail at the first value that is not finite.
    checks: bool,
}

struct RankThread<B: Backend> {
    commands: Option<Sender<RankCommand<B>>>,
    thread: Option<JoinHandle<()>>,
}

impl<B: Backend> Pipeline<B> {
    /// Replicas of the pipeline in this process, each with its own microbatches.
    pub fn replicas(&self) -> usize {
        self.workers.len() / self.ranks
    }

    /// Times stages by their devices from now on: every stage waits until its device has run it. Otherwise the time of a stage on a GPU
    /// ends when its kernels are launched.
    pub fn time_by_device(&mut self, timed: bool) {
        self.timed = timed;
    }

    /// Runs one iteration of a plan that passes the checker on a pipeline with one replica.
    ///
    /// # Errors
    /// As [`Pipeline::run_replicas`].
    pub fn run(
        &mut self,
        plan: &Plan,
        batch: &Arc<Batch>,
        update: Option<Update>,
    ) -> Result<StepReport, PipelineError> {
        self.run_replicas(&[ReplicaWork { plan, batch }], update)
    }

    /// Runs one iteration: every stage of every replica, the sums of the gradients over replicas, and the optimiser step if there
    /// is an update.
    ///
    /// # Errors
    /// [`PipelineError`] of the first rank that failed. The pipeline cannot continue after it.
    pub fn run_replicas(
        &mut self,
        work: &[ReplicaWork<'_>],
        update: Option<Update>,
    ) -> Result<StepReport, PipelineError> {
        if work.len() != self.replicas() {
            let (given, replicas) = (work.len(), self.replicas());
            return Err(PipelineError::Replicas { given, replicas });
        }
        let epoch = Instant::now();
        let mode = Mode { update, loss_scale: update.map_or(1.0, |u| u.loss_scale), checks: false };
        let scales = self.start(work, epoch, mode)?;
        let (reports, gradient_norm) = self.finish(&scales, update)?;
        let elapsed = Seconds(epoch.elapsed().as_secs_f64());
        let empty = Trace { ranks: self.ranks as u32, spans: Vec::new() };
        let mut traces = vec![empty; work.len()];
        let mut losses = Vec::new();
        let mut peak_activation = Vec::new();
        for (id, report) in reports {
            traces[id / self.ranks].spans.extend(report.spans);
            losses.push(report.loss_sum);
            peak_activation.push(report.peak_activation);
        }
        let loss_sum = self.sum_over_processes(&losses)?;
        let trained_tokens = work.first().map_or(1, |w| w.batch.trained_tokens.max(1));
        let loss = loss_sum / trained_tokens as f64;
        Ok(StepReport { traces, elapsed, loss, gradient_norm, peak_activation })
    }

    /// Runs an iteration again whose loss or gradients were not finite, and returns the first place with such a value. The pipeline
    /// cannot continue after it.
    ///
    /// `None` if this time all values are finite, or the iteration fails for another reason.
    pub fn first_non_finite(
        &mut self,
        work: &[ReplicaWork<'_>],
        loss_scale: f64,
    ) -> Option<NonFinite> {
        let mode = Mode { update: None, loss_scale, checks: true };
        let scales = self.start(work, Instant::now(), mode).ok()?;
        match self.finish(&scales, None).err()? {
            PipelineError::Exec(ExecError::Stage { source: StageError::Failed(error), .. }) => {
                error.downcast_ref::<NonFinite>().cloned()
            }
            _ => None,
        }
    }

    /// Gives every rank its action list; returns the channels over which ranks wait for the scale of their gradients.
    fn start(
        &mut self,
        work: &[ReplicaWork<'_>],
        epoch: Instant,
        mode: Mode,
    ) -> Result<Vec<Sender<Option<f64>>>, PipelineError> {
        let Mode { update, loss_scale, checks } = mode;
        let mut scales = Vec::new();
        for (replica, work) in work.iter().enumerate() {
            let program = Arc::new(compile(work.plan));
            for (r, link) in self.links(replica)?.into_iter().enumerate() {
                let rank_update = update.map(|update| {
                    let (sender, scale) = channel();
                    scales.push(sender);
                    RankUpdate { learning_rate: update.learning_rate, scale }
                });
                let iteration = Iteration {
                    program: program.clone(),
                    batch: work.batch.clone(),
                    loss_scale,
                    link,
                    epoch,
                    update: rank_update,
                    checks,
                    timed: self.timed,
                };
                self.command(replica * self.ranks + r, RankCommand::Run(Box::new(iteration)))?;
            }
        }
        Ok(scales)
    }

    /// Links for one iteration of a replica of this process.
    fn links(&self, replica: usize) -> Result<Vec<RankLink<B>>, PipelineError> {
        let devices = &self.devices[replica * self.ranks..][..self.ranks];
        let number = self.connections.group.index() * self.replicas() + replica;
        let links = self.connections.links.connect(&ReplicaRanks::new(number, devices));
        let links = links.map_err(|source| PipelineError::Links { replica: number, source })?;
        if links.len() != self.ranks {
            let (what, given) = ("links", links.len());
            return Err(PipelineError::Connections { what, given, expected: self.ranks });
        }
        Ok(links)
    }

    /// Collects the reports of all ranks; when all norms are there, answers them with the scale of the gradients.
    fn finish(
        &mut self,
        scales: &[Sender<Option<f64>>],
        update: Option<Update>,
    ) -> Result<(BTreeMap<usize, RankReport>, f64), PipelineError> {
        let mut norms = BTreeMap::new();
        let mut reports = BTreeMap::new();
        let mut gradient_norm = 0.0;
        while reports.len() < self.workers.len() {
            match self.reply()? {
                (id, Reply::SquaredNorm(norm)) => {
                    norms.insert(id, norm);
                    if norms.len() == self.workers.len() {
                        // Summed in the order of ranks, so that the result does not depend on the order of arrival.
                        let scaled =
                            self.value_of_first_process(norms.values().sum::<f64>().sqrt())?;
                        gradient_norm = scaled / update.map_or(1.0, |u| u.loss_scale);
                        let scale = update.and_then(|u| u.gradient_scale(gradient_norm));
                        for sender in scales {
                            let _ = sender.send(scale);
                        }
                    }
                }
                (id, Reply::Done(report)) => {
                    reports.insert(id, report);
                }
                (id, _) => return Err(self.out_of_turn(id)),
            }
        }
        Ok((reports, gradient_norm))
    }

    /// The value of the first process. Others may round differently, but all must take the same step.
    fn value_of_first_process(&self, number: f64) -> Result<f64, PipelineError> {
        let bytes = self.connections.group.broadcast(number.to_le_bytes().to_vec())?;
        Ok(numbers(&bytes).next().unwrap_or(f64::NAN))
    }

    /// The sum in the order of processes and ranks, so that it has the same bits as in one process.
    fn sum_over_processes(&self, own: &[f64]) -> Result<f64, PipelineError> {
        let own = own.iter().flat_map(|x| x.to_le_bytes()).collect();
        let all = self.connections.group.all_gather(own)?;
        Ok(all.iter().flat_map(|bytes| numbers(bytes)).sum())
    }

    /// Tensors of all ranks of this process, by name.
    ///
    /// # Errors
    /// [`PipelineError::Rank`] if a rank has ended.
    pub fn export(&mut self, what: TensorKind) -> Result<NamedTensors, PipelineError> {
        // Replicas have equal weights and gradients, but each may have only a shard of the averages.
        let asked = if what == TensorKind::Averages { self.workers.len() } else { self.ranks };
        for id in 0..asked {
            self.command(id, RankCommand::Export(what))?;
        }
        let mut all = NamedTensors::new();
        for _ in 0..asked {
            match self.reply()? {
                (_, Reply::Exported(tensors)) => all.extend(tensors),
                (id, _) => return Err(self.out_of_turn(id)),
            }
        }
        Ok(all)
    }

    /// Lets all ranks of this process write their tensors into the folder of a [`Draft`](crate::checkpoint::Draft), at once, and
    /// returns the files. The inner error is that of the first rank that could not write; the pipeline can continue after it.
    ///
    /// # Errors
    /// [`PipelineError::Rank`] if a rank has ended.
    pub fn write(
        &mut self,
        folder: &Path,
    ) -> Result<Result<Vec<ShardFile>, CheckpointError>, PipelineError> {
        for id in 0..self.workers.len() {
            self.command(id, RankCommand::Write(folder.to_owned()))?;
        }
        let mut written = BTreeMap::new();
        for _ in 0..self.workers.len() {
            match self.reply()? {
                (id, Reply::Written(files)) => written.insert(id, files),
                (id, _) => return Err(self.out_of_turn(id)),
            };
        }
        let files: Result<Vec<Vec<ShardFile>>, _> = written.into_values().collect();
        Ok(files.map(|files| files.into_iter().flatten().collect()))
    }

    /// Replaces weights and optimiser state after `steps` steps; every rank reads only its own tensors.
    ///
    /// # Errors
    /// [`PipelineError::Import`] if a tensor is missing, has another shape or cannot be read.
    pub fn read(
        &mut self,
        checkpoint: &Arc<CheckpointReader>,
        steps: u64,
    ) -> Result<(), PipelineError> {
        for id in 0..self.workers.len() {
            let checkpoint = checkpoint.clone();
            self.command(id, RankCommand::Read { checkpoint, steps })?;
        }
        for _ in 0..self.workers.len() {
            match self.reply()? {
                (_, Reply::Imported) => {}
                (id, _) => return Err(self.out_of_turn(id)),
            }
        }
        Ok(())
    }
}

impl<B: Backend> Drop for Pipeline<B> {
    fn drop(&mut self) {
        for rank in &mut self.workers {
            rank.commands = None;
        }
        for rank in &mut self.workers {
            if let Some(thread) = rank.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// The numbers of a message.
fn numbers(bytes: &[u8]) -> impl Iterator<Item = f64> {
    let (eights, _) = bytes.as_chunks::<8>();
    eights.iter().map(|eight| f64::from_le_bytes(*eight))
}
