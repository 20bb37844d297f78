//! A trace in the format of Chrome and Perfetto (ui.perfetto.dev): a process per rank with its stages and its memory, and arrows
//! for messages.

use dip_core::{Bytes, Plan, Seconds, Span, Trace};
use serde_json::{Value, json};

use super::run::TimelineRun;
use super::summary::{Summary, describe};

/// Arrows begin and end this far inside their stages, or in the middle of shorter ones. An arrow belongs to the stage that is
/// running at its time, and at the end of a stage that is the next one.
const INSIDE: Seconds = Seconds(1e-6);

/// Returns the trace event JSON of runs, one below another. The format has times in microseconds.
pub fn chrome(runs: &[TimelineRun<'_>]) -> String {
    let mut events = Vec::new();
    let mut first_process = 0;
    for run in runs {
        let prefix = if runs.len() > 1 { format!("{}: ", run.label) } else { String::new() };
        let summary = Summary::of(run.plan, run.trace);
        for (i, rank) in summary.ranks.iter().enumerate() {
            let process = first_process + i;
            for (name, value) in [
                ("process_name", json!({"name": format!("{prefix}rank {i}")})),
                ("process_sort_index", json!({"sort_index": process})),
                ("thread_name", json!({"name": "stages"})),
            ] {
                events.push(
                    json!({"ph": "M", "name": name, "pid": process, "tid": 0, "args": value}),
                );
            }
            for (task, span) in &rank.spans {
                events.push(json!({
                    "ph": "X", "name": describe(task), "cat": task.module.as_ref(), "pid": process,
                    "tid": 0, "ts": micro(span.start), "dur": micro(span.end - span.start),
                    "args": {"task": task.id, "strategy": task.strategy, "planned_s": task.duration_s},
                }));
            }
            for &(time, Bytes(bytes)) in &rank.memory.points {
                events.push(json!({
                    "ph": "C", "name": "memory", "pid": process, "ts": micro(time),
                    "args": {"bytes": bytes},
                }));
            }
        }
        arrows(run.plan, run.trace, first_process, &mut events);
        first_process += summary.ranks.len();
    }
    json!({"displayTimeUnit": "ms", "traceEvents": events}).to_string()
}

/// One arrow per message: from the end of a task to the start of its consumer on another rank.
fn arrows(plan: &Plan, trace: &Trace, first_process: usize, events: &mut Vec<Value>) {
    let mut spans: Vec<Option<&Span>> = vec![None; plan.graph.tasks.len()];
    for span in &trace.spans {
        if let Some(slot) = spans.get_mut(span.task.index()) {
            *slot = Some(span);
        }
    }
    for task in &plan.graph.tasks {
        for dep in &task.deps {
            let made = spans.get(dep.task.index()).copied().flatten();
            let (Some(from), Some(to)) = (made, spans[task.id.index()]) else { continue };
            if from.rank == to.rank {
                continue;
            }
            let id = events.len();
            let mut point = |phase: &str, span: &Span, time| {
                events.push(json!({
                    "ph": phase, "bp": "e", "name": "message", "cat": "message", "id": id,
                    "pid": first_process + span.rank.index(), "tid": 0, "ts": micro(time),
                }));
            };
            point("s", from, from.end - inside(from));
            point("f", to, to.start + inside(to));
        }
    }
}

fn inside(span: &Span) -> Seconds {
    INSIDE.min((span.end - span.start) * 0.5)
}

fn micro(time: Seconds) -> f64 {
    time.0 * 1e6
}
