//! Plans without backwards: evaluation, captions and samples run forwards only.

use std::sync::Arc;

use crate::cost::Strategy;
use crate::plan::graph::{Dep, Task, TaskGraph, TaskKind};
use crate::plan::partition::{BatchSplit, Chunk, Partition};
use crate::plan::plan::{MAX_WINDOW, Plan};
use crate::spec::{Bytes, MicrobatchId, ModelSpec, Seconds, SubMicrobatchId, TaskId};

/// The inputs of [`forward_plan`].
#[derive(Clone, Copy)]
pub struct ForwardInput<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// The placement of its layers.
    pub partition: &'a Partition,
    /// The instances of every module in every microbatch: at most one slice each. A module without a slice does not run.
    pub split: &'a BatchSplit,
}

/// The plan of forwards that keep nothing. Microbatches follow one another through the chunks of all modules.
///
/// Stages have no costs. The window of the plan is its longest order, so that a rank runs the first task that is ready: microbatches
/// fill the pipeline whatever the placement, and earlier ones go first. Ids follow microbatch, module (in topological order) and
/// chunk. Every rank has its tasks in this order, which depends only backwards and so has no deadlock.
pub fn forward_plan(input: &ForwardInput<'_>) -> Plan {
    let mut builder = Builder { input, tasks: Vec::new() };
    for microbatch in 0..input.split.slices.len() {
        builder.microbatch(microbatch);
    }
    let ranks = input.partition.ranks as usize;
    let mut order = vec![Vec::new(); ranks];
    for task in &builder.tasks {
        order[task.rank.index()].push(task.id);
    }
    let longest = order.iter().map(Vec::len).max().unwrap_or(0);
    let graph = TaskGraph {
        model: input.model.name.clone(),
        cluster: String::new(),
        ranks: input.partition.ranks,
        memory_limit_bytes: vec![Bytes(u64::MAX); ranks],
        static_bytes: vec![Bytes::ZERO; ranks],
        tasks: builder.tasks,
    };
    let plan = Plan::new(graph, "forward", order, Seconds::ZERO)
        .expect("every task comes after the tasks it depends on");
    Plan { window: (longest as u32).clamp(1, MAX_WINDOW), ..plan }
}

struct Builder<'a> {
    input: &'a ForwardInput<'a>,
    tasks: Vec<Task>,
}

impl Builder<'_> {
    fn microbatch(&mut self, microbatch: usize) {
        let ForwardInput { model, partition, split } = *self.input;
        let mut last_of: Vec<Option<TaskId>> = vec![None; model.modules.len()];
        for module in model.topological_order() {
            if split.slices[microbatch][module.index()].is_empty() {
                continue;
            }
            let name: Arc<str> = model.modules[module.index()].name.as_str().into();
            let inputs = model.inputs_of(module).into_iter();
            let mut deps: Vec<TaskId> = inputs.filter_map(|input| last_of[input.index()]).collect();
            for chunk in &partition.module(module).chunks {
                deps = vec![self.push(microbatch, &name, chunk, &deps)];
            }
            last_of[module.index()] = deps.first().copied();
        }
    }

    fn push(
        &mut self,
        microbatch: usize,
        module: &Arc<str>,
        chunk: &Chunk,
        on: &[TaskId],
    ) -> TaskId {
        let id = TaskId::from(self.tasks.len());
        self.tasks.push(Task {
            id,
            rank: chunk.rank,
            kind: TaskKind::Forward,
            module: module.clone(),
            segment: chunk.segment,
            microbatch: MicrobatchId::from(microbatch),
            sub_microbatch: SubMicrobatchId::from(0),
            duration_s: Seconds::ZERO,
            activation_bytes: Bytes::ZERO,
            strategy: Strategy::default(),
            deps: on.iter().map(|&task| Dep { task, comm_s: Seconds::ZERO }).collect(),
            candidates: Vec::new(),
        });
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{ModulePartition, Route, check_plan};
    use crate::spec::{RankId, SegmentId, presets};

    /// Every layer a chunk, along `route`.
    fn layers_on(model: &ModelSpec, ranks: u32, route: Route) -> Partition {
        let module = |layers: u32| {
            let chunk = |layer: u32| Chunk {
                rank: RankId::from(route.rank(layer as usize, ranks as usize)),
                segment: SegmentId(layer / ranks),
                layers: layer..layer + 1,
            };
            ModulePartition { sub_microbatch: 1, chunks: (0..layers).map(chunk).collect() }
        };
        let modules = model.modules.iter().map(|m| module(m.layers)).collect();
        Partition { ranks, modules }
    }

    #[test]
    fn every_chunk_of_a_module_with_instances_runs_once_and_after_its_inputs() {
        let model = presets::model("vlm-tiny").unwrap();
        // Pictures and text; text alone; a continuation in which the pictures are known.
        let split =
            BatchSplit { slices: vec![vec![vec![0..3], vec![0..1]], vec![vec![], vec![0..1]]] };
        let [vision, language] = [0, 1].map(|m| model.modules[m].layers as usize);
        for (ranks, route) in [(1, Route::Loop), (2, Route::Loop), (3, Route::Wave)] {
            let partition = layers_on(&model, ranks, route);
            let input = ForwardInput { model: &model, partition: &partition, split: &split };
            let plan = forward_plan(&input);
            assert_eq!(check_plan(&plan), []);
            assert_eq!(plan.graph.tasks.len(), vision + 2 * language);
            let first_of_language = &plan.graph.tasks[vision];
            assert_eq!(first_of_language.deps[0].task.index(), vision - 1);
            assert_eq!(plan.graph.tasks[vision + language].deps, []);
        }
    }
}
