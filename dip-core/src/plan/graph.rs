//! The task graph `dip.graph/v1`: stages with durations, memory and dependencies, without an order.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cost::Strategy;
use crate::spec::{Bytes, MicrobatchId, RankId, Seconds, SegmentId, SubMicrobatchId, TaskId};

/// The schema name of a graph file.
pub const GRAPH_SCHEMA: &str = "dip.graph/v1";
/// Maximum number of tasks of a graph. It bounds the memory of readers and of the search.
pub const MAX_TASKS: usize = 1 << 20;
/// Maximum number of pairs of slices between modules of a graph, each of which may become a dependency.
pub const MAX_SLICE_PAIRS: u64 = 1 << 26;
/// Maximum number of pipeline ranks of a graph.
pub const MAX_RANKS: usize = 65_536;

/// The kind of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Forward of a stage pair.
    Forward,
    /// Backward: all gradients, or only input gradients if the pair has a weight task.
    Backward,
    /// Weight gradients that are split from the backward.
    Weight,
}

/// The key of a stage pair. Forward, backward and weight task of the pair share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairKey {
    /// Rank.
    pub rank: RankId,
    /// Module name.
    pub module: Arc<str>,
    /// Segment of the module.
    pub segment: SegmentId,
    /// Microbatch.
    pub microbatch: MicrobatchId,
    /// Sub-microbatch of that microbatch.
    pub sub_microbatch: SubMicrobatchId,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Task {
    /// Its index in [`TaskGraph::tasks`].
    pub id: TaskId,
    /// The rank that runs it.
    pub rank: RankId,
    /// Its kind.
    pub kind: TaskKind,
    /// The module it belongs to.
    pub module: Arc<str>,
    /// The pipeline segment.
    pub segment: SegmentId,
    /// The microbatch.
    pub microbatch: MicrobatchId,
    /// The sub-microbatch.
    pub sub_microbatch: SubMicrobatchId,
    /// Its duration.
    pub duration_s: Seconds,
    /// Bytes that its pair holds, on a forward; 0 on other tasks.
    pub activation_bytes: Bytes,
    /// The memory strategy of its pair.
    pub strategy: Strategy,
    /// Tasks that must end before it starts. Each task is listed once.
    pub deps: Vec<Dep>,
    /// Strategies from which a plan chooses one for the pair, on a forward; empty if there is no choice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
}

/// A dependency on another task.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dep {
    /// The task that must end first.
    pub task: TaskId,
    /// Time until its result arrives. Overlaps with computation.
    pub comm_s: Seconds,
}

/// One strategy that a pair may use.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Candidate {
    /// Its name.
    pub strategy: Strategy,
    /// Duration of the forward.
    pub forward_s: Seconds,
    /// Duration of the backward task.
    pub backward_s: Seconds,
    /// Bytes that the pair holds.
    pub activation_bytes: Bytes,
}

/// The file of a task graph, `dip.graph/v1`.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct GraphFile<'a> {
    /// `dip.graph/v1`.
    schema: &'static str,
    #[serde(flatten)]
    graph: &'a TaskGraph,
}

/// All stages of one iteration, with memory limits, without an order.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TaskGraph {
    /// Model name, for reports.
    pub model: String,
    /// Cluster name, for reports.
    pub cluster: String,
    /// Number of pipeline ranks, `P`.
    pub ranks: u32,
    /// Memory limit of each rank.
    pub memory_limit_bytes: Vec<Bytes>,
    /// Static bytes of each rank: weights, gradients, optimiser state and the largest working set of a stage.
    pub static_bytes: Vec<Bytes>,
    /// The stages. `tasks[i].id == i`.
    pub tasks: Vec<Task>,
}

impl Task {
    /// The key of its stage pair.
    pub fn pair(&self) -> PairKey {
        PairKey {
            rank: self.rank,
            module: self.module.clone(),
            segment: self.segment,
            microbatch: self.microbatch,
            sub_microbatch: self.sub_microbatch,
        }
    }

    /// True if both tasks belong to one stage pair.
    pub fn same_pair(&self, other: &Self) -> bool {
        self.rank == other.rank
            && self.segment == other.segment
            && self.microbatch == other.microbatch
            && self.sub_microbatch == other.sub_microbatch
            && self.module == other.module
    }
}

/// The tasks of one stage pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Its forward.
    pub forward: TaskId,
    /// Its backward; `None` in modules that run no backward.
    pub backward: Option<TaskId>,
    /// Its weight task, if the backward is split.
    pub weight: Option<TaskId>,
}

impl Pair {
    /// The task at whose end the activations are freed.
    pub fn release(&self) -> TaskId {
        self.weight.or(self.backward).unwrap_or(self.forward)
    }
}

impl TaskGraph {
    /// The task with this id.
    pub fn task(&self, id: TaskId) -> &Task {
        &self.tasks[id.index()]
    }

    /// Stage pairs in the order of their forwards. Leaves out duplicate tasks and tasks without a forward, which the checker
    /// reports.
    pub fn pairs(&self) -> Vec<Pair> {
        let mut index = HashMap::new();
        let mut pairs: Vec<Pair> = Vec::new();
        for task in self.tasks.iter().filter(|t| t.kind == TaskKind::Forward) {
            index.entry(task.pair()).or_insert_with(|| {
                pairs.push(Pair { forward: task.id, backward: None, weight: None });
                pairs.len() - 1
            });
        }
        for task in &self.tasks {
            if let Some(&i) = index.get(&task.pair()) {
                match task.kind {
                    TaskKind::Forward => continue,
                    TaskKind::Backward => pairs[i].backward.get_or_insert(task.id),
                    TaskKind::Weight => pairs[i].weight.get_or_insert(task.id),
                };
            }
        }
        pairs
    }

    /// Writes `dip.graph/v1`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&GraphFile { schema: GRAPH_SCHEMA, graph: self })
            .expect("plain data has a JSON form")
    }
}
