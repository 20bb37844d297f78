//! Builds the chunks of every rank, connects the ranks, and starts their threads.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use burn::tensor::StreamId;
use burn::tensor::backend::Backend;
use dip_core::{FieldError, name_covers};

use super::connect::{Member, connect};
use super::{Pipeline, RankThread};
use crate::runtime::chunks::Chunks;
use crate::runtime::error::PipelineError;
use crate::runtime::group::{Position, ProcessGrid};
use crate::runtime::init::PipelineInit;
use crate::runtime::optimizer::{Optimizer, no_such_part};
use crate::runtime::replica::Replica;
use crate::runtime::shard::OptimizerShard;
use crate::runtime::tied::TiedWeights;
use crate::runtime::worker::{RankWorker, Reply};
use crate::stage::{ChunkStage, RankMemory};
use crate::uploads::Uploads;
use crate::weights::is_adapter;

impl<B: Backend> Pipeline<B> {
    /// Builds the chunks of every rank on its device and starts a thread for each rank.
    ///
    /// # Errors
    /// [`PipelineError`] if the devices do not fit the partition, the model cannot be built, the ranks cannot be connected, or a
    /// thread cannot be started.
    pub fn new(init: &PipelineInit<'_, B>) -> Result<Self, PipelineError> {
        let grid = init.grid()?;
        let positions = grid.hosted(init.connections.group.index());
        let chunks = build_chunks(init, &positions)?;
        check_names(init, &chunks)?;
        let tied = init.connections.processes.as_ref();
        let tied = TiedWeights::of(init.model, init.partition, &positions, tied);
        let members = connect(init, &grid, &chunks)?;
        let (reply_sender, replies) = channel();
        let mut pipeline = Self {
            workers: Vec::new(),
            grid,
            replicas: grid.hosted_replicas(init.connections.group.index()),
            positions,
            devices: init.devices.clone(),
            connections: init.connections.clone(),
            model: init.model.clone(),
            partition: init.partition.clone(),
            modalities: init.modalities.clone(),
            replies,
            timed: false,
            sync: Instant::now(),
        };
        let parts = chunks.into_iter().zip(members).zip(tied);
        for (id, (((position, chunks), member), tied)) in parts.enumerate() {
            let replies = reply_sender.clone();
            let parts = WorkerParts { id, position, chunks, member, tied, replies };
            pipeline.workers.push(start_thread(init, &grid, parts)?);
        }
        Ok(pipeline)
    }
}

/// Checks that every setting that names parameters names one that the model has.
fn check_names<B: Backend>(
    init: &PipelineInit<'_, B>,
    chunks: &[(Position, Chunks<B>)],
) -> Result<(), PipelineError> {
    // Replicas have equal names, which are many.
    let of_first = chunks.iter().filter(|(position, _)| position.replica == 0);
    let own: Vec<String> =
        of_first.flat_map(|(_, c)| c.values()).flat_map(ChunkStage::names).collect();
    let all = init.connections.group.all_gather(own.join("\n").into_bytes())?;
    let texts = all.iter().map(|bytes| String::from_utf8_lossy(bytes));
    let names: Vec<String> =
        texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    init.optimizer.check_names(&names)?;
    for module in &init.model.modules {
        let full = module.lora.iter().flat_map(|lora| &lora.full);
        let parts = module.frozen.iter().map(|part| ("frozen", part));
        for (field, part) in parts.chain(full.map(|part| ("lora.full", part))) {
            let name = format!("{}.{part}", module.name);
            if !names.iter().any(|parameter| name_covers(&name, parameter)) {
                return Err(no_such_part(module.path(field), &name, &names).into());
            }
        }
    }
    Ok(check_something_is_trained(init, &names)?)
}

/// Refuses a run whose parts are all frozen, one by one.
fn check_something_is_trained<B: Backend>(
    init: &PipelineInit<'_, B>,
    names: &[String],
) -> Result<(), FieldError> {
    let is_trained = |name: &String| {
        let (module, path) = name.split_once('.').unwrap_or((name, ""));
        let of = init.model.modules.iter().find(|m| m.name == module);
        of.is_some_and(|module| module.trains(path, is_adapter(name)))
    };
    if names.iter().any(is_trained) {
        return Ok(());
    }
    let limit = "fewer than all parts of all modules";
    let remedy = "train one of them, or give adapters with [lora]";
    Err(FieldError::new("weights.frozen", "every part of the model", limit, remedy))
}

/// The chunks of the ranks of this process.
fn build_chunks<B: Backend>(
    init: &PipelineInit<'_, B>,
    positions: &[Position],
) -> Result<Vec<(Position, Chunks<B>)>, PipelineError> {
    let build = |(&position, device): (&Position, _)| {
        Ok((position, init.chunks_of(position.rank, device)?))
    };
    positions.iter().zip(&init.devices).map(build).collect()
}

/// The parts of a worker.
struct WorkerParts<B: Backend> {
    /// Its number among the ranks of this process.
    id: usize,
    position: Position,
    chunks: Chunks<B>,
    member: Member<B>,
    tied: TiedWeights<B>,
    replies: Sender<(usize, Reply)>,
}

fn start_thread<B: Backend>(
    init: &PipelineInit<'_, B>,
    grid: &ProcessGrid,
    parts: WorkerParts<B>,
) -> Result<RankThread<B>, PipelineError> {
    let WorkerParts { id, position, mut chunks, member, tied, replies } = parts;
    let rank = position.rank;
    let memory = Arc::<RankMemory>::default();
    let uploads = Uploads::default();
    for chunk in chunks.values_mut() {
        chunk.share_memory(memory.clone());
        chunk.share_uploads(uploads.clone());
    }
    let replica = replica_of(init, grid, position.replica, member, &mut chunks);
    let (commands, command_receiver) = channel();
    let worker = RankWorker {
        id,
        rank,
        replica,
        chunks,
        memory,
        uploads,
        optimizer: Optimizer::new(&init.optimizer),
        tied,
        forwards: None,
        commands: command_receiver,
        replies,
    };
    let threads = init.threads_per_rank;
    // All threads share one stream. With several streams a GPU may run dependent work out of order, and overwrite memory that one
    // stream has freed while another still reads it (Burn 0.21).
    let stream = StreamId::current();
    let thread = std::thread::Builder::new()
        .name(format!("dip-rank-{}", grid.number(position)))
        .spawn(move || stream.executes(|| serve_in_pool(worker, threads)))
        .map_err(|source| PipelineError::Thread { rank, source })?;
    Ok(RankThread { commands: Some(commands), thread: Some(thread) })
}

/// The place of a rank among its replicas.
fn replica_of<B: Backend>(
    init: &PipelineInit<'_, B>,
    grid: &ProcessGrid,
    number: usize,
    collective: Member<B>,
    chunks: &mut Chunks<B>,
) -> Replica<B> {
    let count = grid.replicas();
    let is_sharded = init.optimizer.shard && count > 1;
    let shard = is_sharded.then(|| OptimizerShard::of(chunks, number, count));
    Replica { number, reports_norm: number == 0, collective, shard }
}

/// Serves inside the rank's own compute pool, so that ranks never wait for each other's threads.
fn serve_in_pool<B: Backend>(worker: RankWorker<B>, threads: usize) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build();
    // Lives until the rank ends, because dropping it ends the compute threads.
    let _pool = pool;
    worker.serve();
}
