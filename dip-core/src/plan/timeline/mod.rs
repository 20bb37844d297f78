//! The timeline semantics: the definition of when a task runs and how much memory a rank holds.
//!
//! `start = max(end of the previous task on the rank, max over deps of end + comm_s)`; communication overlaps computation.
//! A rank holds its static bytes and the bytes of its live pairs. A pair is live from the start of its forward to the end of
//! its weight task, or of its backward if it has no weight task, or of the forward itself if it runs no backward.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::plan::graph::{TaskGraph, TaskKind};
use crate::spec::{Bytes, RankId, Seconds, TaskId};

/// Start and end of every task, and the peak memory of every rank.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Timeline {
    /// Start of each task.
    pub start: Vec<Seconds>,
    /// End of each task.
    pub end: Vec<Seconds>,
    /// End of the last task.
    pub makespan: Seconds,
    /// Peak memory of each rank, static bytes included.
    pub peak: Vec<Bytes>,
}

/// Predicted figures of a plan.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Prediction {
    /// End of the last task.
    pub makespan_s: Seconds,
    /// Start of each task.
    pub start_s: Vec<Seconds>,
    /// End of each task.
    pub end_s: Vec<Seconds>,
    /// Peak memory of each rank, static bytes included.
    pub peak_bytes: Vec<Bytes>,
    /// 1 - sum of durations / (P * makespan).
    pub bubble_ratio: f64,
}

/// An order that has no timeline.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum TimelineError {
    /// The order does not have one list per rank.
    #[error("the order has {lists} lists, but must have one for each of {ranks} ranks")]
    Lists {
        /// Number of lists.
        lists: usize,
        /// Number of ranks of the graph.
        ranks: u32,
    },
    /// The order does not list every task exactly once on its own rank.
    #[error(
        "task {task} is listed {times} times on rank {rank}, but must be listed once, on rank {expected}"
    )]
    Coverage {
        /// The task.
        task: TaskId,
        /// The rank of the list.
        rank: RankId,
        /// Number of times it is listed there.
        times: usize,
        /// The rank of the task.
        expected: RankId,
    },
    /// The order lists a task that the graph does not have.
    #[error(
        "rank {rank} lists task {task}, but the graph has {tasks} tasks, numbered from 0; remove it from the order"
    )]
    UnknownTask {
        /// The task.
        task: TaskId,
        /// The rank of the list.
        rank: RankId,
        /// Number of tasks of the graph.
        tasks: usize,
    },
    /// Dependencies and order wait for each other.
    #[error("the order deadlocks: {}; reorder one of these tasks", stuck_text(.stuck))]
    Deadlock {
        /// Each blocked rank with the task it waits at.
        stuck: Vec<(RankId, TaskId)>,
    },
}

fn stuck_text(stuck: &[(RankId, TaskId)]) -> String {
    let at: Vec<_> = stuck.iter().map(|(r, t)| format!("rank {r} waits at task {t}")).collect();
    at.join(", ")
}

impl Timeline {
    /// Evaluates an order. Takes time and memory linear in tasks and dependencies.
    ///
    /// # Errors
    /// [`TimelineError::Lists`] if the order has not one list per rank, [`TimelineError::UnknownTask`] if it lists a task that
    /// the graph does not have, [`TimelineError::Coverage`] if it does not list every task once on its rank,
    /// [`TimelineError::Deadlock`] if tasks wait for each other.
    ///
    /// # Panics
    /// If a dependency is out of range or `static_bytes` lacks a rank. The loaders refuse such graphs, and
    /// [`check_graph`](crate::check_graph) reports them.
    pub fn evaluate(graph: &TaskGraph, order: &[Vec<TaskId>]) -> Result<Self, TimelineError> {
        check_coverage(graph, order)?;
        let n = graph.tasks.len();
        let mut waiting: Vec<u32> = graph.tasks.iter().map(|t| t.deps.len() as u32).collect();
        let dependents = Dependents::of(graph);
        let mut ready = vec![Seconds::ZERO; n];
        let mut start = vec![Seconds::ZERO; n];
        let mut end = vec![Seconds::ZERO; n];
        let mut next = vec![0usize; order.len()];
        let mut free = vec![Seconds::ZERO; order.len()];
        let mut runnable: Vec<usize> = (0..order.len()).collect();
        let mut done = 0;
        while let Some(rank) = runnable.pop() {
            while let Some(&id) = order[rank].get(next[rank]) {
                let i = id.index();
                if waiting[i] > 0 {
                    break;
                }
                start[i] = free[rank].max(ready[i]);
                end[i] = start[i] + graph.tasks[i].duration_s;
                free[rank] = end[i];
                next[rank] += 1;
                done += 1;
                for &(dependent, comm) in dependents.of_task(i) {
                    let d = dependent as usize;
                    ready[d] = ready[d].max(end[i] + comm);
                    waiting[d] -= 1;
                    let other = graph.tasks[d].rank.index();
                    let is_next = order[other].get(next[other]).is_some_and(|t| t.index() == d);
                    if waiting[d] == 0 && other != rank && is_next {
                        runnable.push(other);
                    }
                }
            }
        }
        if done < n {
            let stuck = (0..order.len())
                .filter_map(|r| order[r].get(next[r]).map(|&t| (RankId::from(r), t)))
                .collect();
            return Err(TimelineError::Deadlock { stuck });
        }
        let makespan = end.iter().copied().fold(Seconds::ZERO, Seconds::max);
        Ok(Self { start, end, makespan, peak: peak_bytes(graph, order) })
    }

    /// Share of rank time in which no task runs: `1 - sum of durations / (P * makespan)`. 0 for an empty timeline.
    pub fn bubble_ratio(&self, graph: &TaskGraph) -> f64 {
        let busy: Seconds = graph.tasks.iter().map(|t| t.duration_s).sum();
        let total = self.makespan.0 * f64::from(graph.ranks);
        // Rounding may lift the busy share slightly above 1.
        if total > 0.0 { (1.0 - busy.0 / total).max(0.0) } else { 0.0 }
    }

    /// The figures of a plan file.
    pub fn into_prediction(self, graph: &TaskGraph) -> Prediction {
        let bubble_ratio = self.bubble_ratio(graph);
        Prediction {
            makespan_s: self.makespan,
            start_s: self.start,
            end_s: self.end,
            peak_bytes: self.peak,
            bubble_ratio,
        }
    }
}

fn check_coverage(graph: &TaskGraph, order: &[Vec<TaskId>]) -> Result<(), TimelineError> {
    if order.len() != graph.ranks as usize {
        return Err(TimelineError::Lists { lists: order.len(), ranks: graph.ranks });
    }
    let mut seen = vec![0usize; graph.tasks.len()];
    for (rank, list) in order.iter().enumerate() {
        for &task in list {
            let rank = RankId::from(rank);
            let Some(expected) = graph.tasks.get(task.index()).map(|t| t.rank) else {
                return Err(TimelineError::UnknownTask { task, rank, tasks: graph.tasks.len() });
            };
            if expected != rank {
                return Err(TimelineError::Coverage { task, rank, times: 1, expected });
            }
            seen[task.index()] += 1;
        }
    }
    match seen.iter().position(|&times| times != 1) {
        None => Ok(()),
        Some(i) => {
            let rank = graph.tasks[i].rank;
            let task = TaskId::from(i);
            Err(TimelineError::Coverage { task, rank, times: seen[i], expected: rank })
        }
    }
}

/// Peak memory of every rank. It depends only on the order of the rank, because its tasks run one after another.
pub(crate) fn peak_bytes(graph: &TaskGraph, order: &[Vec<TaskId>]) -> Vec<Bytes> {
    let mut released = vec![Bytes::ZERO; graph.tasks.len()];
    for pair in graph.pairs() {
        released[pair.release().index()] += graph.task(pair.forward).activation_bytes;
    }
    let on_rank = |(rank, list): (usize, &Vec<TaskId>)| {
        let mut live = graph.static_bytes[rank];
        let mut peak = live;
        for &id in list {
            let task = graph.task(id);
            if task.kind == TaskKind::Forward {
                live += task.activation_bytes;
                peak = peak.max(live);
            }
            live -= released[id.index()];
        }
        peak
    };
    order.iter().enumerate().map(on_rank).collect()
}

/// The dependents of every task, in compressed sparse rows.
pub(crate) struct Dependents {
    offsets: Vec<u32>,
    edges: Vec<(u32, Seconds)>,
}

impl Dependents {
    pub(crate) fn of(graph: &TaskGraph) -> Self {
        let mut offsets = vec![0u32; graph.tasks.len() + 1];
        for dep in graph.tasks.iter().flat_map(|t| &t.deps) {
            offsets[dep.task.index() + 1] += 1;
        }
        for i in 1..offsets.len() {
            offsets[i] += offsets[i - 1];
        }
        let mut cursor = offsets.clone();
        let mut edges = vec![(0, Seconds::ZERO); *offsets.last().unwrap_or(&0) as usize];
        for task in &graph.tasks {
            for dep in &task.deps {
                let slot = &mut cursor[dep.task.index()];
                edges[*slot as usize] = (task.id.0, dep.comm_s);
                *slot += 1;
            }
        }
        Self { offsets, edges }
    }

    pub(crate) fn of_task(&self, task: usize) -> &[(u32, Seconds)] {
        &self.edges[self.offsets[task] as usize..self.offsets[task + 1] as usize]
    }
}

#[cfg(test)]
mod tests;
