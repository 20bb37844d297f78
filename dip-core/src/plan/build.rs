//! Builds the task graph from model, partition and batch.
//!
//! Every sub-microbatch of a module runs through the chunks of the module in the order of their layers. The first chunk waits
//! for the last chunk of each input module. It waits for the slices that hold the same instances, or for all slices if the two
//! modules count instances differently (images against the packed sequence). Backwards mirror forwards.

use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

use crate::cost::{ChunkQuery, CostError, CostModel, StageCost};
use crate::plan::graph::{Candidate, Dep, MAX_SLICE_PAIRS, MAX_TASKS, Task, TaskGraph, TaskKind};
use crate::plan::partition::{BatchSplit, Chunk, Partition};
use crate::spec::{
    BatchMeta, Bytes, ClusterSpec, MicrobatchId, ModelSpec, ModuleId, Seconds, SubMicrobatchId,
    TaskId,
};

/// The inputs of [`build_graph`].
#[derive(Clone, Copy)]
pub struct GraphInput<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// The cluster. Its name and device memory go into the graph.
    pub cluster: &'a ClusterSpec,
    /// The placement of the layers.
    pub partition: &'a Partition,
    /// The batch.
    pub batch: &'a BatchMeta,
    /// The split of the batch into sub-microbatches.
    pub split: &'a BatchSplit,
    /// The cost of every stage.
    pub cost: &'a dyn CostModel,
    /// True to split backwards into input and weight gradients, for stages whose cost model offers it.
    pub weight_split: bool,
}

/// A graph that cannot be built.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A stage has no cost.
    #[error(transparent)]
    Cost(#[from] CostError),
    /// The split does not fit the batch or the partition.
    #[error("the split of microbatch {microbatch} for module {module:?} is {what}; split it again")]
    Split {
        /// Microbatch.
        microbatch: MicrobatchId,
        /// Module.
        module: String,
        /// What is wrong with the split.
        what: String,
    },
    /// The graph would be too large.
    #[error(
        "the graph is {microbatches} microbatches with {count} {what} together, but must have at most {limit}; plan fewer microbatches \
         at a time, larger sub-microbatches or fewer segments"
    )]
    TooLarge {
        /// Microbatches.
        microbatches: usize,
        /// What there are too many of.
        what: &'static str,
        /// Their number.
        count: u64,
        /// Its limit.
        limit: u64,
    },
}

/// Builds the task graph of one iteration. Task ids follow microbatch, module (in topological order), sub-microbatch and
/// chunk. All forwards of a microbatch come before its backwards.
///
/// # Errors
/// [`BuildError`] if a stage has no cost or the split does not fit.
pub fn build_graph(input: &GraphInput<'_>) -> Result<TaskGraph, BuildError> {
    let mut builder = Builder::new(input);
    builder.check_size()?;
    for k in 0..input.batch.microbatches.len() {
        builder.microbatch(MicrobatchId::from(k))?;
    }
    Ok(builder.finish())
}

/// The stage pairs of one module of one microbatch: `forwards[sub_microbatch][chunk]`.
#[derive(Default)]
struct ModuleStages {
    slices: Vec<Range<u32>>,
    costs: Vec<Vec<StageCost>>,
    forwards: Vec<Vec<TaskId>>,
    backwards: Vec<Vec<TaskId>>,
}

/// The place of a stage pair in the batch and in the model.
struct StagePlace<'a> {
    microbatch: MicrobatchId,
    module: ModuleId,
    sub_microbatch: usize,
    chunk: &'a Chunk,
}

/// Some instances of a module in one microbatch.
#[derive(Clone, Copy)]
struct InstanceSlice<'a> {
    module: ModuleId,
    instances: &'a Range<u32>,
}

struct Builder<'a> {
    input: &'a GraphInput<'a>,
    names: Vec<Arc<str>>,
    order: Vec<ModuleId>,
    runs_backward: Vec<bool>,
    tasks: Vec<Task>,
    /// The largest working set of a stage, for each rank.
    working: Vec<Bytes>,
}

impl<'a> Builder<'a> {
    fn new(input: &'a GraphInput<'a>) -> Self {
        Self {
            input,
            names: input.model.modules.iter().map(|m| m.name.as_str().into()).collect(),
            order: input.model.topological_order(),
            runs_backward: input.model.runs_backward(),
            tasks: Vec::new(),
            working: vec![Bytes::ZERO; input.partition.ranks as usize],
        }
    }

    /// Checks the size of the graph before anything is built.
    fn check_size(&self) -> Result<(), BuildError> {
        let GraphInput { model, partition, split, weight_split, .. } = *self.input;
        let microbatches = self.input.batch.microbatches.len();
        let inputs: Vec<_> = (0..model.modules.len()).map(|m| model.inputs_of(m.into())).collect();
        let (mut tasks, mut pairs) = (0u64, 0u64);
        for slices in split.slices.iter().take(microbatches) {
            let count = |m: usize| slices.get(m).map_or(0, |slices| slices.len() as u64);
            for (m, module) in partition.modules.iter().enumerate() {
                let kinds = match self.runs_backward.get(m) {
                    Some(true) => 2 + u64::from(weight_split),
                    _ => 1,
                };
                tasks += count(m) * module.chunks.len() as u64 * kinds;
                let inputs = inputs.get(m).into_iter().flatten();
                pairs += inputs.map(|input| count(input.index()) * count(m)).sum::<u64>();
            }
        }
        let limits =
            [("tasks", tasks, MAX_TASKS as u64), ("pairs of slices", pairs, MAX_SLICE_PAIRS)];
        match limits.into_iter().find(|(_, count, limit)| count > limit) {
            Some((what, count, limit)) => {
                Err(BuildError::TooLarge { microbatches, what, count, limit })
            }
            None => Ok(()),
        }
    }

    fn microbatch(&mut self, k: MicrobatchId) -> Result<(), BuildError> {
        let mut stages: Vec<ModuleStages> = Vec::new();
        stages.resize_with(self.input.model.modules.len(), ModuleStages::default);
        for module in self.order.clone() {
            let slices = self.slices(k, module)?;
            stages[module.index()] = self.forwards(k, module, slices, &stages)?;
        }
        for module in self.order.clone().into_iter().rev() {
            if self.runs_backward[module.index()] {
                stages[module.index()].backwards = self.backwards(k, module, &stages);
            }
        }
        Ok(())
    }

    fn slices(&self, k: MicrobatchId, module: ModuleId) -> Result<Vec<Range<u32>>, BuildError> {
        let meta = &self.input.batch.microbatches[k.index()];
        let (_, instances) = self.input.model.instances(module, meta);
        let slices = self
            .input
            .split
            .slices
            .get(k.index())
            .and_then(|modules| modules.get(module.index()))
            .cloned()
            .unwrap_or_default();
        let mut covered = 0;
        for slice in &slices {
            if slice.start != covered || slice.is_empty() {
                break;
            }
            covered = slice.end;
        }
        if covered != instances {
            let module = self.names[module.index()].to_string();
            let what = format!("{slices:?}, but must cover 0..{instances} in order");
            return Err(BuildError::Split { microbatch: k, module, what });
        }
        Ok(slices)
    }

    fn forwards(
        &mut self,
        k: MicrobatchId,
        module: ModuleId,
        slices: Vec<Range<u32>>,
        upstream: &[ModuleStages],
    ) -> Result<ModuleStages, BuildError> {
        let input = self.input;
        let meta = &input.batch.microbatches[k.index()];
        let chunks = &input.partition.module(module).chunks;
        let mut stages = ModuleStages::default();
        for (s, slice) in slices.iter().enumerate() {
            let workload = input.model.workload(module, meta, slice.clone());
            let (mut costs, mut forwards) = (Vec::new(), Vec::new());
            for chunk in chunks {
                let query = self.chunk_query(module, chunk);
                let working = &mut self.working[chunk.rank.index()];
                *working = (*working).max(input.cost.working_bytes(&query, workload));
                let candidates = input.cost.candidates(&query, workload)?;
                let keep = candidates.first().cloned().ok_or_else(|| CostError::Unknown {
                    module: self.names[module.index()].to_string(),
                    what: "no candidate strategy".into(),
                    remedy: "offer at least `keep` from CostModel::candidates".into(),
                })?;
                let deps = match forwards.last() {
                    Some(&previous) => vec![self.edge(previous, chunk, costs.last())],
                    None => self.module_edges(
                        k,
                        InstanceSlice { module, instances: slice },
                        chunk,
                        upstream,
                    ),
                };
                let place = StagePlace { microbatch: k, module, sub_microbatch: s, chunk };
                let id = self.push(&place, TaskKind::Forward, &keep, deps);
                if candidates.len() > 1 {
                    let split = input.weight_split;
                    self.tasks[id.index()].candidates =
                        candidates.into_iter().map(|c| candidate(c, split)).collect();
                }
                forwards.push(id);
                costs.push(keep);
            }
            stages.forwards.push(forwards);
            stages.costs.push(costs);
        }
        stages.slices = slices;
        Ok(stages)
    }

    fn backwards(
        &mut self,
        k: MicrobatchId,
        module: ModuleId,
        stages: &[ModuleStages],
    ) -> Vec<Vec<TaskId>> {
        let input = self.input;
        let own = &stages[module.index()];
        let chunks = &input.partition.module(module).chunks;
        let mut backwards = Vec::new();
        for s in 0..own.slices.len() {
            let mut ids = vec![TaskId::default(); chunks.len()];
            for (c, chunk) in chunks.iter().enumerate().rev() {
                let cost = &own.costs[s][c];
                let place = StagePlace { microbatch: k, module, sub_microbatch: s, chunk };
                let mut deps = vec![Dep { task: own.forwards[s][c], comm_s: Seconds::ZERO }];
                if c + 1 < chunks.len() {
                    deps.push(self.edge(ids[c + 1], chunk, Some(cost)));
                } else {
                    deps.extend(self.gradient_edges(&place, stages));
                }
                ids[c] = self.push(&place, TaskKind::Backward, cost, deps);
                let weight = cost.weight.filter(|_| input.weight_split);
                if weight.is_some() {
                    let deps = vec![Dep { task: ids[c], comm_s: Seconds::ZERO }];
                    self.push(&place, TaskKind::Weight, cost, deps);
                }
            }
            backwards.push(ids);
        }
        backwards
    }

    /// Edges into the first chunk of a module from the last chunks of its inputs.
    fn module_edges(
        &self,
        k: MicrobatchId,
        own: InstanceSlice<'_>,
        chunk: &Chunk,
        upstream: &[ModuleStages],
    ) -> Vec<Dep> {
        let mut deps = Vec::new();
        for module in self.input.model.inputs_of(own.module) {
            let stages = &upstream[module.index()];
            for (s, instances) in stages.slices.iter().enumerate() {
                if self.overlap(k, InstanceSlice { module, instances }, own)
                    && let Some(&producer) = stages.forwards[s].last()
                {
                    deps.push(self.edge(producer, chunk, stages.costs[s].last()));
                }
            }
        }
        deps
    }

    /// Edges into the backward of the last chunk of a module from the first chunks of its consumers.
    fn gradient_edges(&self, place: &StagePlace<'_>, stages: &[ModuleStages]) -> Vec<Dep> {
        let &StagePlace { microbatch, module, sub_microbatch, chunk } = place;
        let own = &stages[module.index()];
        let own_slice = InstanceSlice { module, instances: &own.slices[sub_microbatch] };
        let mut deps = Vec::new();
        for module in self.input.model.consumers_of(module) {
            let consumer = &stages[module.index()];
            for (s, instances) in consumer.slices.iter().enumerate() {
                if self.overlap(microbatch, own_slice, InstanceSlice { module, instances })
                    && let Some(&producer) = consumer.backwards.get(s).and_then(|ids| ids.first())
                {
                    deps.push(self.edge(producer, chunk, own.costs[sub_microbatch].last()));
                }
            }
        }
        deps
    }

    /// True if two slices of one microbatch share an instance, or if their modules count instances differently.
    fn overlap(&self, k: MicrobatchId, a: InstanceSlice<'_>, b: InstanceSlice<'_>) -> bool {
        let meta = &self.input.batch.microbatches[k.index()];
        let (space_a, _) = self.input.model.instances(a.module, meta);
        let (space_b, _) = self.input.model.instances(b.module, meta);
        space_a != space_b
            || (a.instances.start < b.instances.end && b.instances.start < a.instances.end)
    }

    /// An edge from `producer` into a task of `chunk`. It carries the output of the stage with `cost`, or its gradient.
    fn edge(&self, producer: TaskId, chunk: &Chunk, cost: Option<&StageCost>) -> Dep {
        let bytes = cost.map_or(Bytes::ZERO, |c| c.output_bytes);
        let from = self.tasks[producer.index()].rank;
        Dep { task: producer, comm_s: self.input.cost.transfer(from, chunk.rank, bytes) }
    }

    fn chunk_query(&self, module: ModuleId, chunk: &Chunk) -> ChunkQuery<'a> {
        ChunkQuery {
            model: self.input.model,
            module,
            layers: chunk.layers.clone(),
            trainable: self.input.model.modules[module.index()].trainable,
            runs_backward: self.runs_backward[module.index()],
        }
    }

    fn push(
        &mut self,
        place: &StagePlace<'_>,
        kind: TaskKind,
        cost: &StageCost,
        deps: Vec<Dep>,
    ) -> TaskId {
        let &StagePlace { microbatch, module, sub_microbatch, chunk } = place;
        let weight = cost.weight.filter(|_| self.input.weight_split).unwrap_or(Seconds::ZERO);
        let id = TaskId::from(self.tasks.len());
        self.tasks.push(Task {
            id,
            rank: chunk.rank,
            kind,
            module: self.names[module.index()].clone(),
            segment: chunk.segment,
            microbatch,
            sub_microbatch: SubMicrobatchId::from(sub_microbatch),
            duration_s: match kind {
                TaskKind::Forward => cost.forward,
                TaskKind::Backward => cost.backward - weight,
                TaskKind::Weight => weight,
            },
            activation_bytes: match kind {
                TaskKind::Forward => cost.activation_bytes,
                TaskKind::Backward | TaskKind::Weight => Bytes::ZERO,
            },
            strategy: cost.strategy.clone(),
            deps,
            candidates: Vec::new(),
        });
        id
    }

    fn finish(self) -> TaskGraph {
        let input = self.input;
        let ranks = input.partition.ranks;
        let mut static_bytes = self.working.clone();
        for (m, module) in input.partition.modules.iter().enumerate() {
            for chunk in &module.chunks {
                let query = self.chunk_query(ModuleId::from(m), chunk);
                static_bytes[chunk.rank.index()] += input.cost.static_bytes(&query);
            }
        }
        TaskGraph {
            model: input.model.name.clone(),
            cluster: input.cluster.name.clone(),
            ranks,
            memory_limit_bytes: vec![input.cluster.device.memory_bytes; ranks as usize],
            static_bytes,
            tasks: self.tasks,
        }
    }
}

fn candidate(cost: StageCost, weight_split: bool) -> Candidate {
    let weight = cost.weight.filter(|_| weight_split).unwrap_or(Seconds::ZERO);
    Candidate {
        strategy: cost.strategy,
        forward_s: cost.forward,
        backward_s: cost.backward - weight,
        activation_bytes: cost.activation_bytes,
    }
}
