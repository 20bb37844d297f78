//! The figures of a plan and its trace.

use dip_core::{Bytes, Plan, Seconds, Span, Task, TaskKind, Trace};
use serde::Serialize;

use super::memory::{MemoryCurve, memory};

/// The figures that all reports share.
pub struct Summary<'a> {
    plan: &'a Plan,
    pub makespan: Seconds,
    bubble_ratio: f64,
    pub ranks: Vec<RankSummary<'a>>,
}

/// The figures of one rank.
pub struct RankSummary<'a> {
    pub spans: Vec<(&'a Task, Span)>,
    pub forward: Seconds,
    pub backward: Seconds,
    pub weight: Seconds,
    pub memory: MemoryCurve,
    /// The memory limit of the rank.
    pub limit: Bytes,
}

impl<'a> Summary<'a> {
    pub fn of(plan: &'a Plan, trace: &Trace) -> Self {
        let graph = &plan.graph;
        let curves = memory(graph, trace);
        let mut ranks: Vec<RankSummary<'a>> = curves
            .into_iter()
            .enumerate()
            .map(|(rank, memory)| RankSummary {
                spans: Vec::new(),
                forward: Seconds::ZERO,
                backward: Seconds::ZERO,
                weight: Seconds::ZERO,
                memory,
                limit: graph.memory_limit_bytes.get(rank).copied().unwrap_or(Bytes::UNLIMITED),
            })
            .collect();
        for &span in &trace.spans {
            let (Some(task), Some(rank)) =
                (graph.tasks.get(span.task.index()), ranks.get_mut(span.rank.index()))
            else {
                continue;
            };
            let took = span.end - span.start;
            match task.kind {
                TaskKind::Forward => rank.forward += took,
                TaskKind::Backward => rank.backward += took,
                TaskKind::Weight => rank.weight += took,
            }
            rank.spans.push((task, span));
        }
        Self { plan, makespan: trace.makespan(), bubble_ratio: trace.bubble_ratio(), ranks }
    }

    /// Labels and values of the headline figures.
    pub fn headline(&self) -> Vec<(&'static str, String)> {
        let plan = self.plan;
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let mut figures = vec![
            ("model", plan.graph.model.clone()),
            ("cluster", plan.graph.cluster.clone()),
            ("schedule", plan.schedule.clone()),
            ("stages", plan.graph.tasks.len().to_string()),
            ("makespan", self.makespan.to_string()),
            ("planned", plan.predicted.makespan_s.to_string()),
            ("bubbles", percent(self.bubble_ratio)),
        ];
        if plan.lower_bound_s > Seconds::ZERO {
            figures.push(("lower bound", plan.lower_bound_s.to_string()));
            figures.push(("above bound", percent(self.makespan / plan.lower_bound_s - 1.0)));
        }
        figures
    }
}

impl RankSummary<'_> {
    /// The time in which the rank computes.
    pub fn busy(&self) -> Seconds {
        self.forward + self.backward + self.weight
    }

    /// The share of the makespan in which the rank waits.
    pub fn bubble_ratio(&self, makespan: Seconds) -> f64 {
        if makespan.0 > 0.0 { 1.0 - self.busy() / makespan } else { 0.0 }
    }
}

/// The time and memory of one rank in a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct RankFigures {
    /// The rank.
    pub rank: u32,
    /// Time in which it computes.
    pub busy_s: Seconds,
    /// Time of forwards.
    pub forward_s: Seconds,
    /// Time of backwards.
    pub backward_s: Seconds,
    /// Time of weight gradients that are split from backwards.
    pub weight_s: Seconds,
    /// Share of the makespan in which it waits.
    pub bubble_ratio: f64,
    /// Peak memory.
    pub peak_bytes: Bytes,
    /// The limit of its memory, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<Bytes>,
}

/// The figures of every rank in a run of a plan.
pub fn rank_figures(plan: &Plan, trace: &Trace) -> Vec<RankFigures> {
    let summary = Summary::of(plan, trace);
    let figures = |(rank, found): (usize, &RankSummary<'_>)| RankFigures {
        rank: rank as u32,
        busy_s: found.busy(),
        forward_s: found.forward,
        backward_s: found.backward,
        weight_s: found.weight,
        bubble_ratio: found.bubble_ratio(summary.makespan),
        peak_bytes: found.memory.peak,
        limit_bytes: Some(found.limit).filter(|&limit| limit != Bytes::UNLIMITED),
    };
    summary.ranks.iter().enumerate().map(figures).collect()
}

/// Describes a task, such as `forward vision 0.1, segment 2`.
pub fn describe(task: &Task) -> String {
    let kind = match task.kind {
        TaskKind::Forward => "forward",
        TaskKind::Backward => "backward",
        TaskKind::Weight => "weight",
    };
    format!(
        "{kind} {} {}.{}, segment {}",
        task.module, task.microbatch, task.sub_microbatch, task.segment
    )
}

/// The text of a memory limit.
pub fn limit_text(limit: Bytes) -> String {
    if limit == Bytes::UNLIMITED { "none".into() } else { limit.to_string() }
}
