//! The critical path of a run: the chain of stages and messages that its makespan consists of.

use dip_core::{Plan, Seconds, Span, TaskId, Trace};

/// Returns the critical path from the first stage to the last: before each stage stands the one whose end, with its message, came
/// last, be it an input or the stage before it on the rank. Empty if the trace has no span of the plan.
pub fn critical_path(plan: &Plan, trace: &Trace) -> Vec<TaskId> {
    let n = plan.graph.tasks.len();
    let mut spans: Vec<Option<Span>> = vec![None; n];
    let mut before: Vec<Option<TaskId>> = vec![None; n];
    let mut last_of_rank: Vec<Option<TaskId>> = vec![None; plan.graph.ranks as usize];
    let mut last: Option<Span> = None;
    for &span in &trace.spans {
        let place = (spans.get_mut(span.task.index()), last_of_rank.get_mut(span.rank.index()));
        let (Some(slot), Some(previous)) = place else { continue };
        *slot = Some(span);
        before[span.task.index()] = previous.replace(span.task);
        if last.is_none_or(|l| span.end > l.end) {
            last = Some(span);
        }
    }
    let mut path = Vec::new();
    let mut at = last.map(|span| span.task);
    while let Some(task) = at {
        path.push(task);
        if path.len() > n {
            // Only a trace that breaks its plan has a circle.
            break;
        }
        let end = |task: TaskId, comm: Seconds| Some((spans[task.index()]?.end + comm, task));
        let inputs = plan.graph.task(task).deps.iter().filter_map(|d| end(d.task, d.comm_s));
        let previous = before[task.index()].and_then(|previous| end(previous, Seconds::ZERO));
        let latest = inputs.chain(previous).max_by(|a, b| a.0.total_cmp(&b.0));
        at = latest.map(|(_, task)| task);
    }
    path.reverse();
    path
}
