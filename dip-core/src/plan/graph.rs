//! The task graph `dip.graph/v1`: stages with durations, memory and dependencies, before any order is chosen.

use serde::{Deserialize, Serialize};

use crate::cost::Strategy;
use crate::spec::{Bytes, MicrobatchId, RankId, Seconds, SegmentId, SubMicrobatchId, TaskId};

/// The schema name of a graph file.
pub const GRAPH_SCHEMA: &str = "dip.graph/v1";
/// Most tasks a graph may have; bounds every table made for a file.
pub const MAX_TASKS: usize = 4_000_000;
/// Most pipeline ranks a graph may have.
pub const MAX_RANKS: usize = 65_536;

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Forward of a stage pair.
    Forward,
    /// Backward: all gradients, or only those of the input where the pair has a weight task.
    Backward,
    /// Weight gradients, split from the backward.
    Weight,
}

/// What identifies a stage pair: its forward, backward and weight task share this key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairKey {
    /// Rank.
    pub rank: RankId,
    /// Module name.
    pub module: std::sync::Arc<str>,
    /// Segment of the module.
    pub segment: SegmentId,
    /// Microbatch.
    pub microbatch: MicrobatchId,
    /// Sub-microbatch of that microbatch.
    pub sub_microbatch: SubMicrobatchId,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Task {
    /// Its index in [`TaskGraph::tasks`].
    pub id: TaskId,
    /// The rank that runs it.
    pub rank: RankId,
    /// What it does.
    pub kind: TaskKind,
    /// The module it belongs to.
    pub module: std::sync::Arc<str>,
    /// The pipeline segment.
    pub segment: SegmentId,
    /// The microbatch.
    pub microbatch: MicrobatchId,
    /// The sub-microbatch.
    pub sub_microbatch: SubMicrobatchId,
    /// How long it runs.
    pub duration_s: Seconds,
    /// On a forward, what its pair holds; 0 on the others.
    pub activation_bytes: Bytes,
    /// The memory strategy of its pair.
    pub strategy: Strategy,
    /// What must have ended before it starts.
    pub deps: Vec<Dep>,
    /// On a forward of a graph: the strategies among which a plan chooses one for the pair. Empty where there is no choice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
}

/// A dependency on another task.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Dep {
    /// The task that must have ended.
    pub task: TaskId,
    /// Time its result takes to arrive, which overlaps with computation.
    pub comm_s: Seconds,
}

/// One strategy that a pair may use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// Its name.
    pub strategy: Strategy,
    /// Duration of the forward.
    pub forward_s: Seconds,
    /// Duration of the backward task.
    pub backward_s: Seconds,
    /// What the pair holds.
    pub activation_bytes: Bytes,
}

/// All stages of one iteration, with limits, before any order is chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskGraph {
    /// Model name, for reports.
    pub model: String,
    /// Cluster name, for reports.
    pub cluster: String,
    /// Pipeline ranks `P`.
    pub ranks: u32,
    /// Memory of each rank.
    pub memory_limit_bytes: Vec<Bytes>,
    /// Weights, gradients, optimiser state and the largest working set of a stage, of each rank.
    pub static_bytes: Vec<Bytes>,
    /// The stages; `tasks[i].id == i`.
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

    /// Whether both tasks belong to one stage pair.
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
    /// Its backward; frozen modules have none.
    pub backward: Option<TaskId>,
    /// Its weight task, where the backward is split.
    pub weight: Option<TaskId>,
}

impl Pair {
    /// The task at whose end the activations are given back.
    pub fn release(&self) -> TaskId {
        self.weight.or(self.backward).unwrap_or(self.forward)
    }
}

impl TaskGraph {
    /// The task with that id.
    pub fn task(&self, id: TaskId) -> &Task {
        &self.tasks[id.index()]
    }

    /// Stage pairs in the order of their forwards, each listed once. Tasks without a forward, and repeated ones, are left
    /// out here and reported by the checker.
    pub fn pairs(&self) -> Vec<Pair> {
        let mut index = std::collections::HashMap::new();
        let mut pairs: Vec<Pair> = Vec::new();
        for task in self.tasks.iter().filter(|t| t.kind == TaskKind::Forward) {
            index.entry(task.pair()).or_insert_with(|| {
                pairs.push(Pair { forward: task.id, backward: None, weight: None });
                pairs.len() - 1
            });
        }
        for task in self.tasks.iter().filter(|t| t.kind != TaskKind::Forward) {
            if let Some(&i) = index.get(&task.pair()) {
                let slot = match task.kind {
                    TaskKind::Weight => &mut pairs[i].weight,
                    _ => &mut pairs[i].backward,
                };
                slot.get_or_insert(task.id);
            }
        }
        pairs
    }

    /// Edges `before -> after` inside the stage pairs that no dependency states: a backward always runs after its forward,
    /// and a weight task after its backward. Schedules respect them like dependencies without communication; graphs made
    /// here state them all.
    pub fn unstated_deps(&self) -> Vec<(TaskId, TaskId)> {
        let inside = |p: Pair| [(Some(p.forward), p.backward), (p.backward, p.weight)];
        let stated = |before: TaskId, after: TaskId| {
            self.task(after).deps.iter().any(|dep| dep.task == before)
        };
        let edges = self.pairs().into_iter().flat_map(inside);
        let edges = edges.filter_map(|(before, after)| Some((before?, after?)));
        edges.filter(|&(before, after)| !stated(before, after)).collect()
    }

    /// Writes `dip.graph/v1`.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct File<'a> {
            schema: &'static str,
            #[serde(flatten)]
            graph: &'a TaskGraph,
        }
        serde_json::to_string(&File { schema: GRAPH_SCHEMA, graph: self })
            .expect("plain data has a JSON form")
    }
}
