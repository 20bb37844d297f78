//! What happened: when every stage of an iteration ran, in virtual or in real time.

use crate::plan::TaskGraph;
use crate::spec::{RankId, Seconds, TaskId};

/// One stage that ran.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// The task.
    pub task: TaskId,
    /// The rank that ran it.
    pub rank: RankId,
    /// When it started, since the start of the iteration.
    pub start: Seconds,
    /// When it ended.
    pub end: Seconds,
}

/// One iteration as it ran.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    /// Pipeline ranks.
    pub ranks: u32,
    /// The stages, rank by rank in the order of execution.
    pub spans: Vec<Span>,
}

impl Trace {
    /// From the first start to the last end.
    pub fn makespan(&self) -> Seconds {
        let end = self.spans.iter().map(|s| s.end).fold(Seconds::ZERO, Seconds::max);
        let start = self.spans.iter().map(|s| s.start).min_by(Seconds::total_cmp);
        end - start.unwrap_or(Seconds::ZERO)
    }

    /// The share of the ranks' time in which no stage ran: 1 - busy / (P * makespan).
    pub fn bubble_ratio(&self) -> f64 {
        let busy: Seconds = self.spans.iter().map(|s| s.end - s.start).sum();
        let total = self.makespan().0 * f64::from(self.ranks);
        if total > 0.0 { 1.0 - busy.0 / total } else { 0.0 }
    }

    /// The makespan that the measured durations give under the timeline semantics of `graph`, in the order they ran:
    /// what is left of the measured makespan beyond it is overhead of the runtime.
    ///
    /// `None` where the trace does not cover the graph.
    pub fn critical_path(&self, graph: &TaskGraph) -> Option<Seconds> {
        let mut measured = graph.clone();
        let mut order = vec![Vec::new(); graph.ranks as usize];
        for span in &self.spans {
            measured.tasks.get_mut(span.task.index())?.duration_s = span.end - span.start;
            order.get_mut(span.rank.index())?.push(span.task);
        }
        crate::plan::Timeline::evaluate(&measured, &order).ok().map(|t| t.makespan)
    }
}
