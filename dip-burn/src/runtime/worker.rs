//! One pipeline rank: a thread with its chunks, optimiser state and compute threads.

use std::hash::Hasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use burn::tensor::backend::Backend;
use dip_core::{
    Bytes, ExecError, Interpreter, Program, RankHost, RankId, Seconds, SegmentId, Span, Stage,
    StageError,
};
use twox_hash::XxHash3_64;

use super::chunks::Chunks;
use super::forward::{ForwardAnswer, ForwardJob, ForwardSession};
use super::import::ImportError;
use super::link::RankLink;
use super::optimizer::Optimizer;
use super::replica::Replica;
use super::tied::TiedWeights;
use crate::batch::Batch;
use crate::checkpoint::{
    CheckpointError, CheckpointReader, ShardFile, model_file, optimizer_file, write_shard,
};
use crate::params::{NamedTensors, ReadError};
use crate::stage::{ChunkStage, Payload, RankMemory};
use crate::uploads::Uploads;

/// A command of the coordinator.
pub(super) enum RankCommand<B: Backend> {
    /// Run one iteration.
    Run(Box<Iteration<B>>),
    /// Begin to run forwards alone, with the weights or averages of now.
    OpenForwards,
    /// Run forwards.
    Forward(Box<ForwardJob<B>>),
    /// Forget what was kept between forwards. It has no reply.
    CloseForwards,
    /// Copy tensors to the host.
    Export(TensorKind),
    /// Hash the weights.
    Fingerprint,
    /// Write the tensors that this rank keeps into the folder of a checkpoint.
    Write(PathBuf),
    /// Read the weights and optimiser state of this rank from a checkpoint.
    Read { checkpoint: Arc<CheckpointReader>, steps: u64 },
}

/// One iteration of a rank.
pub(super) struct Iteration<B: Backend> {
    pub program: Arc<Program>,
    pub batch: Arc<Batch>,
    pub loss_scale: f64,
    pub link: RankLink<B>,
    pub epoch: Instant,
    pub update: Option<RankUpdate>,
    /// True to fail at the first value that is not finite.
    pub checks: bool,
    /// True if every stage waits until the device has run it.
    pub timed: bool,
}

/// The optimiser step of a rank. The rank reports its squared gradient norm and receives the scale of all gradients.
pub(super) struct RankUpdate {
    pub learning_rate: f64,
    /// `None` to leave the step out.
    pub scale: Receiver<Option<f64>>,
}

/// The kind of tensors of a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// Weights.
    Parameters,
    /// Moving averages of the trained weights, if the run keeps them.
    Averages,
    /// Gradients of the last iteration that ran without an update.
    Gradients,
}

/// A reply of a rank.
pub(super) enum Reply {
    /// Squared norm of its gradients.
    SquaredNorm(f64),
    Done(RankReport),
    Opened,
    Answered(Vec<ForwardAnswer>),
    Exported(NamedTensors),
    Fingerprint(u64),
    /// A full disk does not end the rank.
    Written(Result<Vec<ShardFile>, CheckpointError>),
    Imported,
    Failed(Failure),
}

/// The reason why a rank stopped.
pub(super) enum Failure {
    Exec(ExecError),
    Panic(String),
    Import(ImportError),
}

/// The results of one iteration of a rank.
pub(super) struct RankReport {
    pub spans: Vec<Span>,
    pub loss_sum: f64,
    pub peak_activation: Bytes,
}

/// A rank with its channels to the coordinator.
pub(super) struct RankWorker<B: Backend> {
    /// Its number among the ranks of this process.
    pub id: usize,
    pub rank: RankId,
    pub replica: Replica<B>,
    pub chunks: Chunks<B>,
    pub memory: Arc<RankMemory>,
    pub uploads: Uploads,
    pub optimizer: Optimizer<B>,
    pub tied: TiedWeights<B>,
    /// Present between [`RankCommand::OpenForwards`] and [`RankCommand::CloseForwards`].
    pub forwards: Option<ForwardSession<B>>,
    pub commands: Receiver<RankCommand<B>>,
    pub replies: Sender<(usize, Reply)>,
}

impl<B: Backend> RankWorker<B> {
    /// Serves commands until the coordinator is gone or a command fails. A panic of the backend is a failed command, too.
    pub fn serve(mut self) {
        while let Ok(command) = self.commands.recv() {
            if let RankCommand::CloseForwards = command {
                self.forwards = None;
                continue;
            }
            let reply = catch_unwind(AssertUnwindSafe(|| self.handle(command)))
                .unwrap_or_else(|panic| Reply::Failed(Failure::Panic(panic_text(&*panic))));
            let failed = matches!(reply, Reply::Failed(_));
            if self.replies.send((self.id, reply)).is_err() || failed {
                return;
            }
        }
    }

    fn handle(&mut self, command: RankCommand<B>) -> Reply {
        match command {
            RankCommand::Run(iteration) => match self.run(*iteration) {
                Ok(report) => Reply::Done(report),
                Err(error) => Reply::Failed(Failure::Exec(error)),
            },
            RankCommand::OpenForwards => match self.open_forwards() {
                Ok(()) => Reply::Opened,
                Err(error) => Reply::Failed(Failure::Exec(error)),
            },
            RankCommand::Forward(job) => match self.forward(*job) {
                Ok(answers) => Reply::Answered(answers),
                Err(error) => Reply::Failed(Failure::Exec(error)),
            },
            RankCommand::CloseForwards => unreachable!("it has no reply"),
            RankCommand::Export(what) => Reply::Exported(self.export(what)),
            RankCommand::Fingerprint => Reply::Fingerprint(self.fingerprint()),
            RankCommand::Write(folder) => Reply::Written(self.write(&folder)),
            RankCommand::Read { checkpoint, steps } => match self.read(&checkpoint, steps) {
                Ok(()) => Reply::Imported,
                Err(error) => Reply::Failed(Failure::Import(error)),
            },
        }
    }

    fn run(&mut self, iteration: Iteration<B>) -> Result<RankReport, ExecError> {
        let Iteration { program, batch, loss_scale, mut link, epoch, update, checks, timed } =
            iteration;
        self.memory.restart();
        self.uploads.next_batch();
        for chunk in self.chunks.values_mut() {
            chunk.begin(batch.clone(), loss_scale);
            if checks {
                chunk.check_values();
            }
            if timed {
                chunk.wait_for_device();
            }
        }
        let rank = self.rank;
        self.replica
            .share_gradients(&mut self.chunks, &program, rank)
            .map_err(|source| ExecError::Stage { rank, source })?;
        let mut host = WorkerHost { worker: self, epoch, update };
        let spans = Interpreter::new(&program, rank).run(&mut host, &mut *link)?;
        if checks {
            let check = |chunk: &ChunkStage<B>| chunk.check_gradients();
            let checked = self.chunks.values().try_for_each(check);
            checked.map_err(|source| ExecError::Stage { rank, source })?;
        }
        Ok(RankReport {
            spans,
            loss_sum: self.loss_sum().map_err(|source| ExecError::Stage { rank, source })?,
            peak_activation: self.memory.peak(),
        })
    }

    fn open_forwards(&mut self) -> Result<(), ExecError> {
        let rank = self.rank;
        let session = ForwardSession::begin(rank, &self.chunks, &self.optimizer, &self.replica);
        self.forwards = Some(session.map_err(|source| ExecError::Stage { rank, source })?);
        Ok(())
    }

    fn forward(&mut self, job: ForwardJob<B>) -> Result<Vec<ForwardAnswer>, ExecError> {
        match &mut self.forwards {
            Some(session) => session.run(job),
            None => {
                let source = StageError::PeerGone { peer: "the session of the forwards" };
                Err(ExecError::Stage { rank: self.rank, source })
            }
        }
    }

    fn step(&mut self, update: &RankUpdate) -> Result<(), StageError> {
        self.tied.sum(&mut self.chunks)?;
        let gone = |_| StageError::PeerGone { peer: "the coordinator" };
        let norm = if self.replica.reports_norm { self.squared_gradient_norm()? } else { 0.0 };
        let _ = self.replies.send((self.id, Reply::SquaredNorm(norm)));
        if let Some(scale) = update.scale.recv().map_err(gone)? {
            let owns = |name: &str| self.replica.owns(name);
            let chunks = self.chunks.values_mut();
            self.optimizer.step(chunks, update.learning_rate, scale, &owns);
            self.replica.gather_parameters(&mut self.chunks)?;
        }
        Ok(())
    }

    fn loss_sum(&mut self) -> Result<f64, StageError> {
        let losses = self.chunks.values_mut().map(ChunkStage::loss_sum);
        losses.sum::<Result<f64, ReadError>>().map_err(read_failed)
    }

    fn squared_gradient_norm(&self) -> Result<f64, StageError> {
        let squares = self.chunks.values().map(ChunkStage::squared_gradient_norm);
        squares.sum::<Result<f64, ReadError>>().map_err(read_failed)
    }

    fn export(&mut self, what: TensorKind) -> NamedTensors {
        match what {
            TensorKind::Parameters => {
                self.chunks.values().flat_map(ChunkStage::parameters).collect()
            }
            TensorKind::Averages => self.optimizer.averages(),
            TensorKind::Gradients => self.chunks.values().flat_map(ChunkStage::gradients).collect(),
        }
    }

    /// A hash of names, shapes and values of the weights. Copies one tensor at a time to the host.
    fn fingerprint(&self) -> u64 {
        let mut hash = XxHash3_64::new();
        for tensor in self.chunks.values().flat_map(ChunkStage::lazy_parameters) {
            hash.write(tensor.name.as_bytes());
            tensor.shape.iter().for_each(|&side| hash.write_u64(side as u64));
            hash.write(tensor.read().as_bytes());
        }
        hash.finish()
    }

    /// Writes the weights, unless another replica does, and the optimiser state that this replica keeps for all.
    fn write(&mut self, folder: &Path) -> Result<Vec<ShardFile>, CheckpointError> {
        let Replica { number, shard, .. } = &self.replica;
        let (rank, number) = (self.rank.index(), *number);
        let mut files = Vec::new();
        if number == 0 {
            let weights = self.chunks.values().flat_map(ChunkStage::lazy_parameters).collect();
            files.push(write_shard(folder, model_file(rank), weights)?);
        }
        if number == 0 || shard.is_some() {
            let name = optimizer_file(rank, number);
            files.push(write_shard(folder, name, self.optimizer.state())?);
        }
        Ok(files)
    }

    fn read(&mut self, checkpoint: &CheckpointReader, steps: u64) -> Result<(), ImportError> {
        for chunk in self.chunks.values_mut() {
            chunk.load(checkpoint)?;
        }
        let owns = |name: &str| self.replica.owns(name);
        Ok(self.optimizer.load(&mut self.chunks, checkpoint, steps, &owns)?)
    }
}

struct WorkerHost<'a, B: Backend> {
    worker: &'a mut RankWorker<B>,
    epoch: Instant,
    update: Option<RankUpdate>,
}

impl<B: Backend> RankHost for WorkerHost<'_, B> {
    type Payload = Payload<B>;

    fn now(&self) -> Seconds {
        Seconds(self.epoch.elapsed().as_secs_f64())
    }

    fn stage(
        &mut self,
        module: &str,
        segment: SegmentId,
    ) -> Option<&mut dyn Stage<Payload = Self::Payload>> {
        let chunk = self.worker.chunks.get_mut(&(module.to_owned(), segment))?;
        Some(chunk)
    }

    fn step(&mut self) -> Result<(), StageError> {
        self.worker.replica.take_gradients(&mut self.worker.chunks)?;
        match self.update.take() {
            Some(update) => self.worker.step(&update),
            None => Ok(()),
        }
    }
}

fn read_failed(error: ReadError) -> StageError {
    StageError::Failed(error.into())
}

/// The message of a panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".into())
}
