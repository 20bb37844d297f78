//! Runs forwards through the pipeline: losses, scores of the next token, and velocities. No process holds the whole model.
//!
//! All processes of a run make the same calls. Microbatches are dealt to the replicas, each process runs the ranks that it hosts, and
//! every process gets all results.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::{BatchSplit, ForwardInput, MicrobatchId, ModuleId, TaskId, compile, forward_plan};

use super::Pipeline;
use crate::batch::{Batch, Microbatch};
use crate::runtime::error::PipelineError;
use crate::runtime::forward::{ForwardAnswer, ForwardJob};
use crate::runtime::worker::{RankCommand, Reply};
use crate::stage::{ForwardGoal, ForwardWork};

/// Microbatches of one job for each rank of a replica. More of them would fill the pipeline no better, and take more memory.
const IN_FLIGHT: usize = 4;

/// A microbatch to run forwards.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardItem {
    /// The microbatch.
    pub microbatch: Microbatch,
    /// What the end of the model gives for it.
    pub goal: ForwardGoal,
}

/// A pipeline between two iterations, with the weights of now or with their averages if the run keeps them.
pub struct ForwardPipeline<'p, B: Backend> {
    pipeline: &'p mut Pipeline<B>,
    /// Jobs whose results were not taken yet, the oldest first. Every rank runs them in this order.
    jobs: VecDeque<PendingJob>,
}

/// Microbatches that the ranks of this process run.
struct PendingJob {
    /// Items of the job, those of other processes included.
    items: usize,
    /// Workers that have not answered.
    missing: HashSet<usize>,
    /// Of each replica of which this process runs ranks.
    places: BTreeMap<usize, ReplicaPlaces>,
    /// What the ranks of this process gave.
    answers: Vec<ItemAnswer>,
}

/// The values that an end of the model gave for an item, with the number of the item. Several ends of one microbatch are in the order
/// of their tasks, which is that of their modules.
type ItemAnswer = ((usize, TaskId), Vec<f32>);

/// The items that a replica runs.
struct ReplicaPlaces {
    /// The number of each item.
    numbers: Vec<usize>,
    microbatch_of: HashMap<TaskId, MicrobatchId>,
}

impl<B: Backend> Pipeline<B> {
    /// This pipeline for forwards alone. All processes of a run must call it.
    ///
    /// # Errors
    /// [`PipelineError`] if a rank has failed.
    pub fn forwards(&mut self) -> Result<ForwardPipeline<'_, B>, PipelineError> {
        for id in 0..self.workers.len() {
            self.command(id, RankCommand::OpenForwards)?;
        }
        for _ in 0..self.workers.len() {
            match self.reply()? {
                (_, Reply::Opened) => {}
                (id, _) => return Err(self.out_of_turn(id)),
            }
        }
        Ok(ForwardPipeline { pipeline: self, jobs: VecDeque::new() })
    }
}

impl<B: Backend> Drop for ForwardPipeline<'_, B> {
    fn drop(&mut self) {
        for id in 0..self.pipeline.workers.len() {
            // A rank that has failed keeps nothing.
            let _ = self.pipeline.command(id, RankCommand::CloseForwards);
        }
    }
}

impl<B: Backend> ForwardPipeline<'_, B> {
    /// Mean loss of the trained tokens: cross-entropy in nats, or squared error of the velocity.
    ///
    /// # Errors
    /// [`PipelineError`] if a rank has failed.
    pub fn loss(&mut self, microbatches: &[Microbatch]) -> Result<f64, PipelineError> {
        let trained: u64 = microbatches.iter().map(Microbatch::trained_tokens).sum();
        let mut sum = 0.0;
        for some in microbatches.chunks(self.at_once()) {
            let item = |microbatch: &Microbatch| ForwardItem {
                microbatch: microbatch.clone(),
                goal: ForwardGoal::Loss,
            };
            let losses = self.run(some.iter().map(item).collect())?;
            losses.into_iter().flatten().for_each(|loss| sum += f64::from(loss));
        }
        Ok(sum / trained.max(1) as f64)
    }

    /// Microbatches that fill the pipeline, if they run at once.
    pub fn at_once(&self) -> usize {
        IN_FLIGHT * self.positions()
    }

    /// Ranks of all replicas of all processes.
    pub fn positions(&self) -> usize {
        self.pipeline.grid.ranks() * self.lanes()
    }

    /// Replicas of all processes.
    fn lanes(&self) -> usize {
        self.pipeline.grid.replicas()
    }

    /// Runs microbatches at once. Returns what the end of the model gives for each, row by row.
    ///
    /// # Errors
    /// [`PipelineError`] if the model cannot give it, or a rank has failed.
    pub fn run(&mut self, items: Vec<ForwardItem>) -> Result<Vec<Vec<f32>>, PipelineError> {
        self.submit(items)?;
        self.wait()
    }

    /// Starts to run microbatches, after those that were submitted before.
    ///
    /// # Errors
    /// [`PipelineError`] if a rank has failed.
    pub fn submit(&mut self, items: Vec<ForwardItem>) -> Result<(), PipelineError> {
        let (lanes, count) = (self.lanes(), items.len());
        let own = self.pipeline.replicas.iter().map(|&replica| (replica, Vec::new()));
        let mut of_replica: BTreeMap<usize, Vec<(usize, ForwardItem)>> = own.collect();
        for (i, item) in items.into_iter().enumerate() {
            // A sequence stays on the replica that remembers it.
            let lane = match item.goal {
                ForwardGoal::Continue { number, .. } => number % lanes,
                _ => i % lanes,
            };
            if let Some(of_lane) = of_replica.get_mut(&lane) {
                of_lane.push((i, item));
            }
        }
        of_replica.retain(|_, items| !items.is_empty());
        let mut missing = HashSet::new();
        let mut places = BTreeMap::new();
        for (replica, items) in of_replica {
            let (numbers, items): (Vec<usize>, Vec<ForwardItem>) = items.into_iter().unzip();
            let (ids, microbatch_of) = self.start(replica, items)?;
            missing.extend(ids);
            places.insert(replica, ReplicaPlaces { numbers, microbatch_of });
        }
        self.jobs.push_back(PendingJob { items: count, missing, places, answers: Vec::new() });
        Ok(())
    }

    /// Waits for the oldest microbatches that were submitted; what the end of the model gives for each. Empty if there are none.
    ///
    /// # Errors
    /// [`PipelineError`] if the model cannot give it, or a rank has failed.
    pub fn wait(&mut self) -> Result<Vec<Vec<f32>>, PipelineError> {
        while self.jobs.front().is_some_and(|job| !job.missing.is_empty()) {
            let pipeline = &mut *self.pipeline;
            match pipeline.reply()? {
                (id, Reply::Answered(answers)) => {
                    let job = self.jobs.iter_mut().find(|job| job.missing.contains(&id));
                    let job = job.ok_or_else(|| pipeline.out_of_turn(id))?;
                    job.missing.remove(&id);
                    job.add(pipeline.positions[id].replica, answers);
                }
                (id, _) => return Err(pipeline.out_of_turn(id)),
            }
        }
        match self.jobs.pop_front() {
            Some(PendingJob { items, answers, .. }) => self.share(items, answers),
            None => Ok(Vec::new()),
        }
    }

    /// Starts the forwards of the ranks of a replica that this process hosts. Returns their workers, and the microbatch of every task.
    fn start(
        &mut self,
        replica: usize,
        items: Vec<ForwardItem>,
    ) -> Result<(Vec<usize>, HashMap<TaskId, MicrobatchId>), PipelineError> {
        let work = Arc::new(self.work(items)?);
        let pipeline = &mut *self.pipeline;
        let plan = forward_plan(&ForwardInput {
            model: &pipeline.model,
            partition: &pipeline.partition,
            split: &work.batch.split,
        });
        let microbatch_of = plan.graph.tasks.iter().map(|t| (t.id, t.microbatch)).collect();
        let program = Arc::new(compile(&plan));
        let mut ids = Vec::new();
        for (id, link) in pipeline.links(replica)? {
            let job = ForwardJob { program: program.clone(), work: work.clone(), link };
            pipeline.command(id, RankCommand::Forward(Box::new(job)))?;
            ids.push(id);
        }
        Ok((ids, microbatch_of))
    }

    /// The microbatches with all their instances. A sequence that goes on has instances of the last module only.
    fn work(&self, items: Vec<ForwardItem>) -> Result<ForwardWork, PipelineError> {
        let Pipeline { model, modalities, .. } = &*self.pipeline;
        let continues = model.topological_order().pop().unwrap_or_default();
        let mut slices = Vec::with_capacity(items.len());
        for ForwardItem { microbatch, goal } in &items {
            let goes_on = matches!(goal, ForwardGoal::Continue { begins: false, .. });
            let mut of_microbatch = Vec::with_capacity(model.modules.len());
            for module in (0..model.modules.len()).map(ModuleId::from) {
                let spec = &model.modules[module.index()];
                let instances = modalities.of(spec)?.instances(spec, microbatch);
                let runs = instances > 0 && (!goes_on || module == continues);
                of_microbatch.push(runs.then_some(0..instances).into_iter().collect());
            }
            slices.push(of_microbatch);
        }
        let (microbatches, goals): (Vec<_>, Vec<_>) =
            items.into_iter().map(|item| (item.microbatch, item.goal)).unzip();
        let split = BatchSplit { slices };
        let trained_tokens = microbatches.iter().map(Microbatch::trained_tokens).sum();
        let batch = Batch { microbatches, split, trained_tokens };
        Ok(ForwardWork { batch, goals, continues })
    }

    /// The values of all `count` items, from all processes.
    fn share(&self, count: usize, own: Vec<ItemAnswer>) -> Result<Vec<Vec<f32>>, PipelineError> {
        let group = &self.pipeline.connections.group;
        let mut answers = match group.size() {
            1 => own,
            _ => {
                let messages = group.all_gather(to_bytes(&own))?;
                messages.iter().flat_map(|message| from_bytes(message)).collect()
            }
        };
        answers.sort_by_key(|(place, _)| *place);
        let mut all = vec![Vec::new(); count];
        for ((number, _), values) in answers {
            if let Some(place) = all.get_mut(number) {
                place.extend(values);
            }
        }
        Ok(all)
    }
}

impl PendingJob {
    fn add(&mut self, replica: usize, answers: Vec<ForwardAnswer>) {
        let ReplicaPlaces { numbers, microbatch_of } = &self.places[&replica];
        let number = |task: &TaskId| numbers[microbatch_of[task].index()];
        self.answers.extend(answers.into_iter().map(|(task, x)| ((number(&task), task), x)));
    }
}

/// Answers as a message: item, task and length before the values of each, in words of four bytes.
fn to_bytes(answers: &[ItemAnswer]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for ((number, task), values) in answers {
        let head = [*number as u32, task.0, values.len() as u32];
        bytes.extend(head.into_iter().flat_map(u32::to_le_bytes));
        bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    }
    bytes
}

fn from_bytes(message: &[u8]) -> Vec<ItemAnswer> {
    let mut words = message.as_chunks::<4>().0.iter();
    let mut answers = Vec::new();
    while let [number, task, length, rest @ ..] = words.as_slice() {
        let [number, task, length] = [number, task, length].map(|word| u32::from_le_bytes(*word));
        let (values, rest) = rest.split_at(rest.len().min(length as usize));
        let values = values.iter().map(|word| f32::from_le_bytes(*word)).collect();
        answers.push(((number as usize, TaskId(task)), values));
        words = rest.iter();
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_travel_in_four_bytes_a_value_and_broken_messages_are_cut() {
        let answers = vec![
            ((7, TaskId(3)), vec![0.1, -0.0, f32::MIN_POSITIVE]),
            ((usize::from(u16::MAX), TaskId(u32::MAX)), vec![]),
            ((0, TaskId(0)), vec![1.5]),
        ];
        let bytes = to_bytes(&answers);
        assert_eq!(bytes.len(), 4 * (3 * 3 + 4));
        assert_eq!(from_bytes(&bytes), answers);
        assert_eq!(from_bytes(&bytes[..bytes.len() - 5]).len(), 2);
    }
}
