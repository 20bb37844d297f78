//! The coordinator of the ranks: starts their threads, gives them plans, and collects their measurements.

mod build;
mod connect;
mod executor;
mod forward;
mod replies;
mod share;
mod step;

pub use executor::BatchExecutor;
pub use forward::{ForwardItem, ForwardPipeline};
pub use step::{ReplicaWork, StepReport, Update};

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use burn::tensor::backend::Backend;
use dip_core::{ExecError, ModelSpec, Partition, Plan, Seconds, StageError, Trace, compile};

use super::connections::Connections;
use super::error::PipelineError;
use super::group::{Position, ProcessGrid};
use super::link::{RankLink, ReplicaRanks};
use super::worker::{Iteration, RankCommand, RankReport, RankUpdate, Reply, TensorKind};
use crate::batch::Batch;
use crate::checkpoint::{CheckpointError, CheckpointReader, ShardFile};
use crate::model::Modalities;
use crate::params::NamedTensors;
use crate::stage::NonFinite;

/// The ranks of a pipeline and its replicas that this process hosts, each a thread.
pub struct Pipeline<B: Backend> {
    /// The ranks of this process, replica by replica.
    workers: Vec<RankThread<B>>,
    /// The position of each worker.
    positions: Vec<Position>,
    /// Device of each worker.
    devices: Vec<B::Device>,
    /// The replicas with ranks in this process.
    replicas: Vec<usize>,
    /// The place of every rank among the processes.
    grid: ProcessGrid,
    connections: Connections<B>,
    model: ModelSpec,
    partition: Partition,
    modalities: Modalities<B>,
    replies: Receiver<(usize, Reply)>,
    /// True if every stage waits until its device has run it.
    timed: bool,
    /// The last moment that all processes shared, up to the latency of a message.
    sync: Instant,
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
    /// The replicas with ranks in this process, counted over all processes.
    pub fn replicas(&self) -> &[usize] {
        &self.replicas
    }

    /// The place of every rank among the processes.
    pub fn grid(&self) -> &ProcessGrid {
        &self.grid
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
    /// is an update. `work` has an entry for each of [`replicas`](Self::replicas). All processes must call it.
    ///
    /// # Errors
    /// [`PipelineError`] of the first rank that failed. The pipeline cannot continue after it.
    pub fn run_replicas(
        &mut self,
        work: &[ReplicaWork<'_>],
        update: Option<Update>,
    ) -> Result<StepReport, PipelineError> {
        if work.len() != self.replicas.len() {
            let (given, replicas) = (work.len(), self.replicas.len());
            return Err(PipelineError::Replicas { given, replicas });
        }
        let epoch = Instant::now();
        let mode = Mode { update, loss_scale: update.map_or(1.0, |u| u.loss_scale), checks: false };
        let scales = self.start(work, epoch, mode)?;
        let (reports, gradient_norm) = self.finish(&scales, update)?;
        let elapsed = Seconds(epoch.elapsed().as_secs_f64());
        let trained_tokens = work.first().map_or(1, |w| w.batch.trained_tokens.max(1));
        let (loss_sum, all) = self.share(reports, epoch)?;
        let loss = loss_sum / trained_tokens as f64;
        let mut traces: BTreeMap<usize, Trace> = BTreeMap::new();
        let mut peak_activation = Vec::new();
        for (number, report) in all {
            let empty = Trace { ranks: self.grid.ranks() as u32, spans: Vec::new() };
            let replica = self.grid.position(number).replica;
            traces.entry(replica).or_insert(empty).spans.extend(report.spans);
            peak_activation.push(report.peak_activation);
        }
        let traces = traces.into_values().collect();
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
        for (&replica, work) in self.replicas.clone().iter().zip(work) {
            let program = Arc::new(compile(work.plan));
            for (id, link) in self.links(replica)? {
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
                self.command(id, RankCommand::Run(Box::new(iteration)))?;
            }
        }
        Ok(scales)
    }

    /// The workers of a replica, each with its link for one iteration.
    fn links(&self, replica: usize) -> Result<Vec<(usize, RankLink<B>)>, PipelineError> {
        let is_of_replica = |&id: &usize| self.positions[id].replica == replica;
        let ids: Vec<usize> = (0..self.workers.len()).filter(is_of_replica).collect();
        let hosted = ids.iter().map(|&id| (self.positions[id].rank, self.devices[id].clone()));
        let hosted: Vec<_> = hosted.collect();
        let ranks = ReplicaRanks::new(replica, self.grid.ranks(), &hosted);
        let links = self.connections.links.connect(&ranks);
        let links = links.map_err(|source| PipelineError::Links { replica, source })?;
        if links.len() != ids.len() {
            let (what, given) = ("links", links.len());
            return Err(PipelineError::Connections { what, given, expected: ids.len() });
        }
        Ok(ids.into_iter().zip(links).collect())
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
                        let scaled = self.norm_over_processes(&norms)?;
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

    /// The norm over all ranks. The squares are added in the order of ranks, so that the norm depends neither on the order of arrival
    /// nor on the number of processes.
    fn norm_over_processes(&self, squares: &BTreeMap<usize, f64>) -> Result<f64, PipelineError> {
        let own: Vec<f64> = squares.values().copied().collect();
        let bytes = own.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut all: Vec<f64> = vec![0.0; self.grid.ranks() * self.grid.replicas()];
        for (process, bytes) in self.connections.group.all_gather(bytes)?.iter().enumerate() {
            let hosted = self.grid.hosted(process);
            for (position, square) in hosted.into_iter().zip(numbers(bytes)) {
                all[self.grid.number(position)] = square;
            }
        }
        Ok(all.into_iter().sum::<f64>().sqrt())
    }

    /// Tensors of the ranks of this process, by name.
    ///
    /// # Errors
    /// [`PipelineError::Rank`] if a rank has ended.
    pub fn export(&mut self, what: TensorKind) -> Result<NamedTensors, PipelineError> {
        // Replicas have equal weights and gradients, but each may have only a shard of the averages.
        let mut seen = HashSet::new();
        let is_first =
            |position: &Position| seen.insert(position.rank) || what == TensorKind::Averages;
        let asked = self.positions.clone().into_iter().filter(is_first).collect();
        Ok(self.export_from(what, asked)?.into_values().flatten().collect())
    }

    /// Tensors of each rank of this process at `positions`.
    ///
    /// # Errors
    /// As [`export`](Self::export).
    pub fn export_from(
        &mut self,
        what: TensorKind,
        positions: Vec<Position>,
    ) -> Result<BTreeMap<Position, NamedTensors>, PipelineError> {
        let is_asked = |&id: &usize| positions.contains(&self.positions[id]);
        let asked: Vec<usize> = (0..self.workers.len()).filter(is_asked).collect();
        for &id in &asked {
            self.command(id, RankCommand::Export(what))?;
        }
        let mut all = BTreeMap::new();
        for _ in &asked {
            match self.reply()? {
                (id, Reply::Exported(tensors)) => drop(all.insert(self.positions[id], tensors)),
                (id, _) => return Err(self.out_of_turn(id)),
            }
        }
        Ok(all)
    }

    /// A hash of the weights of each rank of this process.
    ///
    /// # Errors
    /// [`PipelineError::Rank`] if a rank has ended.
    pub fn fingerprints(&mut self) -> Result<BTreeMap<Position, u64>, PipelineError> {
        for id in 0..self.workers.len() {
            self.command(id, RankCommand::Fingerprint)?;
        }
        let mut all = BTreeMap::new();
        for _ in 0..self.workers.len() {
            match self.reply()? {
                (id, Reply::Fingerprint(hash)) => drop(all.insert(self.positions[id], hash)),
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
