//! A trace in the format of Chrome and Perfetto (ui.perfetto.dev): one track per rank, its memory, and arrows for messages.

use dip_core::{Bytes, Plan, Seconds, Span, Trace};
use serde_json::{Value, json};

use super::summary::{Summary, describe};

/// Returns the trace event JSON of a run. The format has times in microseconds.
pub fn chrome(plan: &Plan, trace: &Trace) -> String {
    let summary = Summary::of(plan, trace);
    let mut events = vec![json!({
        "ph": "M", "name": "process_name", "pid": 0, "args": {"name": plan.graph.model},
    })];
    for (i, rank) in summary.ranks.iter().enumerate() {
        let name = json!({"name": format!("rank {i}")});
        events.push(json!({"ph": "M", "name": "thread_name", "pid": 0, "tid": i, "args": name}));
        for (task, span) in &rank.spans {
            events.push(json!({
                "ph": "X", "name": describe(task), "cat": task.module.as_ref(), "pid": 0, "tid": i,
                "ts": micro(span.start), "dur": micro(span.end - span.start),
                "args": {"task": task.id, "strategy": task.strategy, "planned_s": task.duration_s},
            }));
        }
        for &(time, Bytes(bytes)) in &rank.memory.points {
            events.push(json!({
                "ph": "C", "name": format!("memory of rank {i}"), "pid": 0, "ts": micro(time),
                "args": {"bytes": bytes},
            }));
        }
    }
    events.extend(arrows(plan, trace));
    json!({"displayTimeUnit": "ms", "traceEvents": events}).to_string()
}

/// One arrow per message: from the end of a task to the start of its consumer on another rank.
fn arrows(plan: &Plan, trace: &Trace) -> Vec<Value> {
    let mut spans: Vec<Option<&Span>> = vec![None; plan.graph.tasks.len()];
    for span in &trace.spans {
        if let Some(slot) = spans.get_mut(span.task.index()) {
            *slot = Some(span);
        }
    }
    let mut events = Vec::new();
    let mut id = 0;
    for task in &plan.graph.tasks {
        for dep in &task.deps {
            let made = spans.get(dep.task.index()).copied().flatten();
            let (Some(from), Some(to)) = (made, spans[task.id.index()]) else { continue };
            if from.rank == to.rank {
                continue;
            }
            let point = |phase: &str, rank, time| {
                json!({
                    "ph": phase, "bp": "e", "name": "message", "cat": "message", "id": id, "pid": 0,
                    "tid": rank, "ts": micro(time),
                })
            };
            events.push(point("s", from.rank, from.end));
            events.push(point("f", to.rank, to.start));
            id += 1;
        }
    }
    events
}

fn micro(time: Seconds) -> f64 {
    time.0 * 1e6
}
