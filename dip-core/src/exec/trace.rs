//! Traces: when every stage of an iteration ran, in virtual or in real time.

use std::collections::VecDeque;

use thiserror::Error;

use crate::plan::{Plan, TaskGraph, Timeline};
use crate::spec::{RankId, Seconds, TaskId};

/// The run of one stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// The task.
    pub task: TaskId,
    /// The rank that ran it.
    pub rank: RankId,
    /// Its start, since the start of the iteration.
    pub start: Seconds,
    /// Its end.
    pub end: Seconds,
}

/// One iteration as it ran.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    /// Number of pipeline ranks.
    pub ranks: u32,
    /// The stages, rank by rank in the order of execution.
    pub spans: Vec<Span>,
}

/// A trace that does not follow its plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TraceError {
    /// A rank ran other tasks than planned, or ran one before the window of the plan allowed it.
    #[error("rank {rank} ran {ran} of {planned} tasks as planned; its executor left the plan")]
    Order {
        /// The rank.
        rank: RankId,
        /// Tasks that it ran as planned before it left the plan.
        ran: usize,
        /// Tasks of the rank in the plan.
        planned: usize,
    },
    /// A task started before a task that it depends on had ended.
    #[error("task {task} started before task {dep} ended, although it needs its result")]
    Dependency {
        /// The task.
        task: TaskId,
        /// The task that it depends on.
        dep: TaskId,
    },
}

/// The number of leading tasks that are each among the next `window` planned tasks that have not run.
fn followed(tasks: impl Iterator<Item = TaskId>, planned: &[TaskId], window: usize) -> usize {
    let mut waiting: VecDeque<TaskId> = planned.iter().copied().collect();
    let mut take = |task: TaskId| {
        let place = waiting.iter().take(window).position(|&planned| planned == task);
        place.and_then(|place| waiting.remove(place)).is_some()
    };
    tasks.take_while(|&task| take(task)).count()
}

impl Trace {
    /// Time from the first start to the last end.
    pub fn makespan(&self) -> Seconds {
        let end = self.spans.iter().map(|s| s.end).fold(Seconds::ZERO, Seconds::max);
        let start = self.spans.iter().map(|s| s.start).min_by(Seconds::total_cmp);
        end - start.unwrap_or(Seconds::ZERO)
    }

    /// Share of rank time in which no stage ran: `1 - busy / (P * makespan)`.
    pub fn bubble_ratio(&self) -> f64 {
        let busy: Seconds = self.spans.iter().map(|s| s.end - s.start).sum();
        let total = self.makespan().0 * f64::from(self.ranks);
        if total > 0.0 { 1.0 - busy.0 / total } else { 0.0 }
    }

    /// Checks that this trace is a run of `plan`: every rank ran its tasks once and in the planned order, or within the window of
    /// the plan, and no task started before its dependencies had ended.
    ///
    /// # Errors
    /// [`TraceError`] for the first deviation.
    pub fn check(&self, plan: &Plan) -> Result<(), TraceError> {
        for (r, planned) in plan.order.iter().enumerate() {
            let rank = RankId::from(r);
            let tasks = self.spans.iter().filter(|s| s.rank == rank).map(|s| s.task);
            let ran = followed(tasks.clone(), planned, plan.window.max(1) as usize);
            if ran != planned.len() || ran != tasks.count() {
                return Err(TraceError::Order { rank, ran, planned: planned.len() });
            }
        }
        if let Some(span) = self.spans.iter().find(|s| s.rank.index() >= plan.order.len()) {
            return Err(TraceError::Order { rank: span.rank, ran: 0, planned: 0 });
        }
        let mut end = vec![Seconds::ZERO; plan.graph.tasks.len()];
        for span in &self.spans {
            end[span.task.index()] = span.end;
        }
        for span in &self.spans {
            let mut deps = plan.graph.task(span.task).deps.iter().map(|d| d.task);
            if let Some(dep) = deps.find(|dep| end[dep.index()] > span.start) {
                return Err(TraceError::Dependency { task: span.task, dep });
            }
        }
        Ok(())
    }

    /// The makespan of the measured durations under the timeline semantics of `graph`, in the order in which the tasks ran.
    /// The rest of the measured makespan is overhead of the runtime.
    ///
    /// Returns `None` if the trace does not cover the graph.
    pub fn critical_path(&self, graph: &TaskGraph) -> Option<Seconds> {
        let mut measured = graph.clone();
        let mut order = vec![Vec::new(); graph.ranks as usize];
        for span in &self.spans {
            measured.tasks.get_mut(span.task.index())?.duration_s = span.end - span.start;
            order.get_mut(span.rank.index())?.push(span.task);
        }
        Timeline::evaluate(&measured, &order).ok().map(|t| t.makespan)
    }
}
