//! The coordinator of the ranks: starts their threads, hands them plans, and collects what they measured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use burn::tensor::StreamId;
use burn::tensor::backend::Backend;
use dip_core::{Bytes, ModelSpec, ModuleId, Partition, Plan, RankId, Seconds, Trace, compile};

use super::between_devices::DeviceLink;
use super::collective::Layout;
use super::error::{PipelineError, ended, out_of_turn};
use super::groups::{alike, collectives, most_state_bytes};
use super::nodes::NodeGroup;
use super::on_batch::OnBatch;
use super::optimizer::{Optimizer, OptimizerConfig};
use super::replica::{Replica, layout_of};
use super::shard::Shard;
use super::tied::Ties;
use super::worker::{
    Chunks, Command, Export, Failure, Iteration, RankReport, RankUpdate, Reply, Worker,
};
use crate::batch::Batch;
use crate::model::{InitialWeights, ModelError, Precision};
use crate::params::NamedTensors;
use crate::stage::{ChunkStage, RankMemory};

/// What a pipeline is made of.
pub struct PipelineInit<'a, B: Backend> {
    /// The model.
    pub model: &'a ModelSpec,
    /// Which rank holds which layers.
    pub partition: &'a Partition,
    /// One device a rank, replica by replica: twice as many as ranks are two replicas. CPU devices compare equal; each rank has its own thread and its own compute threads all the same.
    pub devices: Vec<B::Device>,
    /// Compute threads of a rank on CPU.
    pub threads_per_rank: usize,
    /// What the layers compute in.
    pub precision: Precision,
    /// What the weights are at first.
    pub start: InitialWeights<'a>,
    /// The optimiser.
    pub optimizer: &'a OptimizerConfig,
}

/// One optimiser step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Learning rate.
    pub learning_rate: f64,
    /// Largest norm of all gradients of all ranks together; 0 for no clipping.
    pub clip_norm: f64,
    /// What the loss is multiplied with so that small gradients do not vanish in f16; 1 for f32 and bf16.
    pub loss_scale: f64,
}

/// What one replica does in an iteration. The batches of all replicas have the trained tokens of the whole batch.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaWork<'a> {
    /// A plan of its batch that passes the checker.
    pub plan: &'a Plan,
    /// Its microbatches.
    pub batch: &'a Arc<Batch>,
}

/// What one iteration gave.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// When every stage ran, one trace a replica.
    pub traces: Vec<Trace>,
    /// From the start of the first rank to the end of the last, the optimiser step included.
    pub elapsed: Seconds,
    /// Loss: mean cross-entropy over the trained tokens of the batch, in nats.
    pub loss: f64,
    /// Norm of all gradients, before clipping; 0 where there was no update. Where it is not finite the update was left out.
    pub gradient_norm: f64,
    /// Peak of the activations of each rank, replica by replica.
    pub peak_activation: Vec<Bytes>,
}

/// The ranks of one pipeline and its replicas, each a thread of this process.
pub struct Pipeline<B: Backend> {
    /// Those of the first replica, then those of the second, and so on.
    workers: Vec<Rank<B>>,
    /// Ranks of one replica.
    ranks: usize,
    /// Those of each replica.
    devices: Vec<Arc<[B::Device]>>,
    /// Absent where this process trains alone.
    nodes: Option<Arc<NodeGroup>>,
    replies: Receiver<(usize, Reply)>,
}

struct Rank<B: Backend> {
    commands: Option<Sender<Command<B>>>,
    thread: Option<JoinHandle<()>>,
}

impl<B: Backend> Pipeline<B> {
    /// Builds the chunks of every rank on its own thread and device.
    ///
    /// # Errors
    /// [`PipelineError`] where the model, the devices or the threads cannot be had.
    pub fn new(init: &PipelineInit<'_, B>) -> Result<Self, PipelineError> {
        Self::on_nodes(init, None)
    }

    /// As [`Pipeline::new`], with the replicas of this node behind those of the nodes before it.
    ///
    /// # Errors
    /// As [`Pipeline::new`].
    pub fn on_nodes(
        init: &PipelineInit<'_, B>,
        nodes: Option<Arc<NodeGroup>>,
    ) -> Result<Self, PipelineError> {
        let ranks = init.partition.ranks as usize;
        if ranks == 0 || init.devices.is_empty() || !init.devices.len().is_multiple_of(ranks) {
            let (ranks, devices) = (init.partition.ranks, init.devices.len());
            return Err(PipelineError::Devices { ranks, devices });
        }
        let mut all_chunks = Vec::with_capacity(init.devices.len());
        for (id, device) in init.devices.iter().enumerate() {
            all_chunks.push(chunks_of_rank(init, RankId::from(id % ranks), device)?);
        }
        let layouts: Vec<Layout> = all_chunks[..ranks].iter().map(layout_of).collect();
        if let Some(nodes) = &nodes {
            nodes.allow(most_state_bytes(&layouts));
        }
        let groups = collectives(init, layouts, nodes.as_deref())?;
        let replicas = init.devices.len() / ranks;
        // Behind the listening: whoever passes here may send what all nodes take by now.
        if let Some(nodes) = &nodes {
            nodes.agree("the partition", &alike(init, replicas))?;
        }
        let (node, all) = nodes.as_ref().map_or((0, 1), |n| (n.number(), n.count()));
        let (before, all) = (node * replicas, all * replicas);
        let (reply_sender, replies) = channel();
        let devices = init.devices.chunks(ranks).map(Arc::from).collect();
        let mut pipeline = Self { workers: Vec::new(), ranks, devices, nodes, replies };
        // Every replica ties the ends of its own decoder.
        let ties = (0..replicas).flat_map(|_| Ties::of(init.model, init.partition));
        for (id, ((mut chunks, collective), ties)) in
            all_chunks.into_iter().zip(groups).zip(ties).enumerate()
        {
            let rank = pipeline.rank_of(id);
            let (commands, command_receiver) = channel();
            let number = before + id / ranks;
            let shard =
                (init.optimizer.shard && all > 1).then(|| Shard::of(&mut chunks, number, all));
            let memory = Arc::<RankMemory>::default();
            chunks.values_mut().for_each(|chunk| chunk.share_memory(memory.clone()));
            let worker = Worker {
                id,
                rank,
                replica: Replica { tells_norm: id < ranks, collective, shard },
                chunks,
                memory,
                optimizer: Optimizer::new(init.optimizer),
                ties,
                commands: command_receiver,
                replies: reply_sender.clone(),
            };
            let threads = init.threads_per_rank;
            // What a GPU is given by several streams it may run in another order than they depend on each other: memory that one
            // has given back is written to while another still reads it (Burn 0.21). All threads share one.
            let stream = StreamId::current();
            let thread = std::thread::Builder::new()
                .name(format!("dip-rank-{id}"))
                .spawn(move || stream.executes(|| serve_in_pool(worker, threads)))
                .map_err(|source| PipelineError::Thread { rank, source })?;
            pipeline.workers.push(Rank { commands: Some(commands), thread: Some(thread) });
        }
        Ok(pipeline)
    }

    /// Replicas of the pipeline on this node, which train on microbatches of their own.
    pub fn replicas(&self) -> usize {
        self.workers.len() / self.ranks
    }

    /// Runs one iteration of a plan that passes the checker on a pipeline without further replicas.
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

    /// Runs one iteration: every stage of every replica, the sums of the gradients over replicas, and the optimiser step where
    /// there is an update.
    ///
    /// # Errors
    /// [`PipelineError`] of the first rank that failed; the pipeline cannot go on then.
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
        let scales = self.start(work, epoch, update)?;
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
        let loss_sum = self.sum_over_nodes(&losses)?;
        let trained_tokens = work.first().map_or(1, |w| w.batch.trained_tokens.max(1));
        let loss = loss_sum / trained_tokens as f64;
        Ok(StepReport { traces, elapsed, loss, gradient_norm, peak_activation })
    }

    /// Gives every rank its action list; returns where each waits for the scale of its gradients.
    fn start(
        &mut self,
        work: &[ReplicaWork<'_>],
        epoch: Instant,
        update: Option<Update>,
    ) -> Result<Vec<Sender<Option<f64>>>, PipelineError> {
        let mut scales = Vec::new();
        for (replica, work) in work.iter().enumerate() {
            let program = Arc::new(compile(work.plan));
            let links = DeviceLink::mesh(&self.devices[replica]);
            for (r, link) in links.into_iter().enumerate() {
                let rank_update = update.map(|update| {
                    let (sender, scale) = channel();
                    scales.push(sender);
                    RankUpdate { learning_rate: update.learning_rate, scale }
                });
                let iteration = Iteration {
                    program: program.clone(),
                    batch: work.batch.clone(),
                    loss_scale: update.map_or(1.0, |u| u.loss_scale),
                    link,
                    epoch,
                    update: rank_update,
                };
                self.command(replica * self.ranks + r, Command::Run(Box::new(iteration)))?;
            }
        }
        Ok(scales)
    }

    /// Collects the reports of all ranks, and, on the way, answers their norms with the scale of the gradients.
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
                (id, Reply::Norm(norm)) => {
                    norms.insert(id, norm);
                    if norms.len() == self.workers.len() {
                        // Summed in the order of ranks, so that the result does not depend on who came first.
                        let scaled = self.of_first_node(norms.values().sum::<f64>().sqrt())?;
                        gradient_norm = scaled / update.map_or(1.0, |u| u.loss_scale);
                        let scale = update.and_then(|u| u.scale(gradient_norm));
                        for sender in scales {
                            let _ = sender.send(scale);
                        }
                    }
                }
                (id, Reply::Done(report)) => {
                    reports.insert(id, report);
                }
                (id, _) => return Err(out_of_turn(self.rank_of(id))),
            }
        }
        Ok((reports, gradient_norm))
    }

    /// The number of the first node: another one may round differently, and all must take the same step.
    fn of_first_node(&self, number: f64) -> Result<f64, PipelineError> {
        let Some(nodes) = &self.nodes else { return Ok(number) };
        let bytes = nodes.broadcast(number.to_le_bytes().to_vec())?;
        Ok(numbers(&bytes).next().unwrap_or(f64::NAN))
    }

    /// Summed in the order of nodes and ranks, as in one process.
    fn sum_over_nodes(&self, own: &[f64]) -> Result<f64, PipelineError> {
        let Some(nodes) = &self.nodes else { return Ok(own.iter().sum()) };
        let all = nodes.all_gather(own.iter().flat_map(|x| x.to_le_bytes()).collect())?;
        Ok(all.iter().flat_map(|bytes| numbers(bytes)).sum())
    }

    /// Tensors of all ranks of this node, by name.
    ///
    /// # Errors
    /// [`PipelineError::Rank`] where a rank has ended.
    pub fn export(&mut self, what: Export) -> Result<NamedTensors, PipelineError> {
        // Replicas have the same weights and gradients, but may share the moments.
        let sharded = matches!(what, Export::Moments | Export::Averages);
        let asked = if sharded { self.workers.len() } else { self.ranks };
        for id in 0..asked {
            self.command(id, Command::Export(what))?;
        }
        let mut all = NamedTensors::new();
        for _ in 0..asked {
            match self.reply()? {
                (_, Reply::Exported(tensors)) => all.extend(tensors),
                (id, _) => return Err(out_of_turn(self.rank_of(id))),
            }
        }
        Ok(all)
    }

    /// Replaces weights and optimiser state; every rank takes what it holds.
    ///
    /// # Errors
    /// [`PipelineError::Import`] where a tensor is missing or has another shape.
    pub fn import(
        &mut self,
        model: NamedTensors,
        optimizer: NamedTensors,
        steps: u64,
    ) -> Result<(), PipelineError> {
        let (model, optimizer) = (Arc::new(model), Arc::new(optimizer));
        for r in 0..self.workers.len() {
            let (model, optimizer) = (model.clone(), optimizer.clone());
            self.command(r, Command::Import { model, optimizer, steps })?;
        }
        for _ in 0..self.workers.len() {
            match self.reply()? {
                (_, Reply::Imported) => {}
                (id, _) => return Err(out_of_turn(self.rank_of(id))),
            }
        }
        Ok(())
    }

    /// This pipeline as an [`Executor`](dip_core::Executor) of plans for one batch.
    pub fn on<'a>(&'a mut self, batch: &'a Arc<Batch>, update: Option<Update>) -> OnBatch<'a, B> {
        OnBatch { pipeline: self, batch, update }
    }

    /// The pipeline rank of a worker.
    fn rank_of(&self, id: usize) -> RankId {
        RankId::from(id % self.ranks)
    }

    fn command(&mut self, id: usize, command: Command<B>) -> Result<(), PipelineError> {
        let sent = self.workers[id].commands.as_ref().map(|c| c.send(command));
        match sent {
            Some(Ok(())) => Ok(()),
            // The rank's own account, if it left one, says more than the closed channel.
            _ => match self.replies.try_recv() {
                Ok((id, Reply::Failed(failure))) => Err(failure.into_error(self.rank_of(id))),
                _ => Err(ended(self.rank_of(id))),
            },
        }
    }

    fn reply(&mut self) -> Result<(usize, Reply), PipelineError> {
        match self.replies.recv() {
            Ok((id, Reply::Failed(failure))) => {
                let error = self.first_cause(id, failure);
                let Some(nodes) = self.nodes.as_ref().map(|nodes| nodes.transport()) else {
                    return Err(error);
                };
                // Where a node is gone, the sums over replicas end.
                if let Some(node) = nodes.failure() {
                    return Err(PipelineError::Node(node));
                }
                // Nor do ranks here wait on for sums with other nodes, which may wait for this one.
                nodes.reject(nodes.number(), &format!("has failed: {error}"));
                Err(error)
            }
            Ok(reply) => Ok(reply),
            Err(_) => Err(ended(RankId(0))),
        }
    }

    /// A rank that fails takes its neighbours with it, and theirs may be the first answer: looks for the failure that is
    /// not merely a lost neighbour.
    fn first_cause(&self, id: usize, failure: Failure) -> PipelineError {
        let mut cause = (id, failure);
        let patience = std::time::Duration::from_secs(2);
        while cause.1.is_of_another() {
            match self.replies.recv_timeout(patience) {
                Ok((id, Reply::Failed(failure))) => cause = (id, failure),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        cause.1.into_error(self.rank_of(cause.0))
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

impl Update {
    /// What gradients are multiplied with; none where they are not finite, for one such step would spoil every weight.
    fn scale(&self, norm: f64) -> Option<f64> {
        let clip =
            if self.clip_norm > 0.0 && norm > self.clip_norm { self.clip_norm / norm } else { 1.0 };
        norm.is_finite().then_some(clip / self.loss_scale)
    }
}

fn chunks_of_rank<B: Backend>(
    init: &PipelineInit<'_, B>,
    rank: RankId,
    device: &B::Device,
) -> Result<Chunks<B>, ModelError> {
    init.precision.check_supported::<B>(device)?;
    let mut chunks = Chunks::new();
    for (m, module) in init.partition.modules.iter().enumerate() {
        for chunk in module.chunks.iter().filter(|c| c.rank == rank) {
            let stage = ChunkStage::new(
                init.model,
                ModuleId::from(m),
                chunk.layers.clone(),
                init.start,
                device,
            )?
            .with_precision(init.precision);
            chunks.insert((init.model.modules[m].name.clone(), chunk.segment), stage);
        }
    }
    Ok(chunks)
}

/// Serves inside a compute pool of the rank's own, so that ranks never share or wait for each other's threads.
fn serve_in_pool<B: Backend>(worker: Worker<B>, threads: usize) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build();
    // Kept until the rank ends: dropping it would end the compute threads.
    let _pool = pool;
    worker.serve();
}

/// The numbers of a message.
fn numbers(bytes: &[u8]) -> impl Iterator<Item = f64> {
    let (eights, _) = bytes.as_chunks::<8>();
    eights.iter().map(|eight| f64::from_le_bytes(*eight))
}
