//! What the page draws, as columns of numbers. Times are whole nanoseconds.

use dip_core::{Bytes, Plan, Seconds, TaskGraph};
use serde::Serialize;

use crate::report::bubbles::{Bubble, BubbleCause, bubbles};
use crate::report::colours;
use crate::report::critical::critical_path;
use crate::report::run::{TimelineRun, modules};
use crate::report::summary::{RankSummary, Summary};

/// The data of a page.
#[derive(Serialize)]
pub struct PageData<'a> {
    modules: Vec<ModuleData<'a>>,
    causes: Vec<CauseData>,
    graphs: Vec<GraphData>,
    runs: Vec<RunData<'a>>,
}

#[derive(Serialize)]
struct ModuleData<'a> {
    name: &'a str,
    colours: [&'static str; 3],
}

#[derive(Serialize)]
struct CauseData {
    name: String,
    meaning: &'static str,
    colour: &'static str,
}

/// A task graph, one column a property.
#[derive(Serialize)]
struct GraphData {
    kind: Vec<usize>,
    module: Vec<usize>,
    segment: Vec<u32>,
    microbatch: Vec<u32>,
    sub: Vec<u32>,
    bytes: Vec<u64>,
    planned: Vec<u64>,
    planned_start: Vec<u64>,
    strategy: Vec<String>,
    /// Task and communication time of each dependency in turn.
    deps: Vec<Vec<u64>>,
}

#[derive(Serialize)]
struct RunData<'a> {
    label: &'a str,
    /// The place of its graph in [`PageData::graphs`].
    graph: usize,
    /// The end of the last stage.
    makespan: u64,
    /// The end of the iteration.
    end: u64,
    lanes: Vec<LaneData>,
    critical: Vec<u32>,
}

/// One rank.
#[derive(Serialize)]
struct LaneData {
    task: Vec<u32>,
    start: Vec<u64>,
    end: Vec<u64>,
    /// Start, end and place of the cause in [`PageData::causes`] of each bubble in turn.
    bubbles: Vec<u64>,
    /// Time and bytes of each step in turn.
    memory: Vec<u64>,
    peak: u64,
    limit: Option<u64>,
    /// The share of the makespan in which the rank computes.
    busy: f64,
}

impl<'a> PageData<'a> {
    pub fn of(runs: &'a [TimelineRun<'a>], summaries: &[Summary<'_>]) -> Self {
        let names = modules(runs);
        let mut plans: Vec<&'a Plan> = Vec::new();
        let mut graphs = Vec::new();
        let mut data = Vec::new();
        for (run, summary) in runs.iter().zip(summaries) {
            let known = plans.iter().position(|plan| std::ptr::eq(*plan, run.plan));
            let graph = known.unwrap_or_else(|| {
                plans.push(run.plan);
                graphs.push(GraphData::of(run.plan, &names));
                plans.len() - 1
            });
            data.push(RunData::of(run, summary, graph));
        }
        let module = |(i, name)| ModuleData { name, colours: colours::module(i) };
        let cause = |cause: BubbleCause| CauseData {
            name: cause.to_string(),
            meaning: cause.meaning(),
            colour: colours::cause(cause),
        };
        Self {
            modules: names.into_iter().enumerate().map(module).collect(),
            causes: BubbleCause::ALL.map(cause).into(),
            graphs,
            runs: data,
        }
    }
}

impl GraphData {
    fn of(plan: &Plan, modules: &[&str]) -> Self {
        let TaskGraph { tasks, .. } = &plan.graph;
        let module = |name: &str| modules.iter().position(|m| *m == name).unwrap_or(0);
        Self {
            kind: tasks.iter().map(|t| colours::shade(t.kind)).collect(),
            module: tasks.iter().map(|t| module(&t.module)).collect(),
            segment: tasks.iter().map(|t| t.segment.0).collect(),
            microbatch: tasks.iter().map(|t| t.microbatch.0).collect(),
            sub: tasks.iter().map(|t| t.sub_microbatch.0).collect(),
            bytes: tasks.iter().map(|t| t.activation_bytes.0).collect(),
            planned: tasks.iter().map(|t| nanoseconds(t.duration_s)).collect(),
            planned_start: plan.predicted.start_s.iter().map(|&s| nanoseconds(s)).collect(),
            strategy: tasks.iter().map(|t| t.strategy.to_string()).collect(),
            deps: tasks
                .iter()
                .map(|t| t.deps.iter().flat_map(|d| [u64::from(d.task.0), nanoseconds(d.comm_s)]))
                .map(Iterator::collect)
                .collect(),
        }
    }
}

impl<'a> RunData<'a> {
    fn of(run: &TimelineRun<'a>, summary: &Summary<'_>, graph: usize) -> Self {
        let waits = bubbles(run.plan, run.trace);
        let ranks = summary.ranks.iter().zip(&waits);
        let last = run.last_end();
        Self {
            label: run.label,
            graph,
            makespan: nanoseconds(last),
            end: nanoseconds(run.end.unwrap_or(last).max(last)),
            lanes: ranks.map(|(rank, waits)| LaneData::of(rank, waits, last)).collect(),
            critical: critical_path(run.plan, run.trace).iter().map(|t| t.0).collect(),
        }
    }
}

impl LaneData {
    fn of(rank: &RankSummary<'_>, waits: &[Bubble], last: Seconds) -> Self {
        let cause = |cause| BubbleCause::ALL.iter().position(|c| *c == cause).unwrap_or(0) as u64;
        let wait = |b: &Bubble| [nanoseconds(b.start), nanoseconds(b.end), cause(b.cause)];
        Self {
            task: rank.spans.iter().map(|(task, _)| task.id.0).collect(),
            start: rank.spans.iter().map(|(_, span)| nanoseconds(span.start)).collect(),
            end: rank.spans.iter().map(|(_, span)| nanoseconds(span.end)).collect(),
            bubbles: waits.iter().flat_map(wait).collect(),
            memory: rank.memory.points.iter().flat_map(|&(t, b)| [nanoseconds(t), b.0]).collect(),
            peak: rank.memory.peak.0,
            limit: (rank.limit != Bytes::UNLIMITED).then_some(rank.limit.0),
            busy: if last.0 > 0.0 { rank.busy() / last } else { 0.0 },
        }
    }
}

fn nanoseconds(time: Seconds) -> u64 {
    (time.0 * 1e9).round().max(0.0) as u64
}
