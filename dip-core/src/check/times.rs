//! Start and end of every task, computed anew and compared with what the plan predicts.
//!
//! A predicted time is reported where it differs from the recomputed one *and* does not follow from the other predicted
//! times: so the place where a prediction goes wrong is named, not everything behind it.

use super::order::Sequence;
use super::violation::{Findings, ViolationCode};
use super::{TOLERANCE, close};
use crate::wire::draft::{PlanDraft, TaskDraft};

/// Recomputed times of every task; NaN where something it hangs on could not be read.
pub(super) struct Times {
    pub(super) start: Vec<f64>,
    pub(super) end: Vec<f64>,
    pub(super) makespan: f64,
}

/// The later of two times; unknown where one of them is.
fn later(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Runs the order: every task starts as soon as its rank is free and its inputs have arrived.
pub(super) fn recompute(tasks: &[TaskDraft], sorted: &[u32], previous: &[Option<u32>]) -> Times {
    let n = tasks.len();
    let mut times = Times { start: vec![f64::NAN; n], end: vec![f64::NAN; n], makespan: 0.0 };
    for &id in sorted {
        let i = id as usize;
        times.start[i] = earliest(&tasks[i], previous[i], &times.end);
        times.end[i] = times.start[i] + tasks[i].duration;
        times.makespan = later(times.makespan, times.end[i]);
    }
    times
}

fn earliest(task: &TaskDraft, previous: Option<u32>, end: &[f64]) -> f64 {
    let Some(deps) = &task.deps else { return f64::NAN };
    let free = previous.map_or(0.0, |p| end[p as usize]);
    deps.iter().fold(free, |at, dep| later(at, end[dep.task.index()] + dep.comm_s.0))
}

/// Checks predicted starts and ends against the recomputed ones.
pub(super) fn check(
    tasks: &[TaskDraft],
    plan: &PlanDraft,
    sequence: &Sequence,
    times: &Times,
    findings: &mut Findings,
) {
    let n = tasks.len();
    let start = plan.start.as_deref().filter(|s| s.len() == n);
    let end = plan.end.as_deref().filter(|e| e.len() == n);
    let floor = TOLERANCE * 1e-3 * times.makespan;
    let before = findings.violations.len();
    let mut astray = None;
    for i in 0..n {
        if let Some(start) = start
            && !close(start[i], times.start[i], floor)
            && !start[i].is_nan()
        {
            astray = astray.or(Some((i, "start_s", start[i], times.start[i])));
            judge_start(
                i,
                tasks,
                (start, end.unwrap_or(&times.end)),
                sequence.previous[i],
                floor,
                findings,
            );
        }
        if let Some(end) = end
            && !close(end[i], times.end[i], floor)
            && !end[i].is_nan()
        {
            astray = astray.or(Some((i, "end_s", end[i], times.end[i])));
            let begin = start.map_or(times.start[i], |s| s[i]);
            judge_end(i, end[i], begin, tasks[i].duration, floor, findings);
        }
    }
    // Deviations within the tolerance of every single step can add up.
    if let (Some((i, field, found, due)), true) = (astray, findings.violations.len() == before)
        && !due.is_nan()
    {
        let code = if field == "start_s" {
            ViolationCode::StartMismatch
        } else {
            ViolationCode::EndMismatch
        };
        let message = format!("{found} s, but the order gives {due} s; recompute the plan");
        findings.add(code, format_args!("predicted.{field}[{i}]"), message);
    }
}

/// Names what is wrong with a start, given the predicted times of what comes before.
fn judge_start(
    i: usize,
    tasks: &[TaskDraft],
    (start, end): (&[f64], &[f64]),
    previous: Option<u32>,
    floor: f64,
    findings: &mut Findings,
) {
    let at = start[i];
    if let Some(d) = broken_dependency(i, tasks, at, end, floor) {
        report_broken(i, d, tasks, at, end, findings);
        return;
    }
    let path = format_args!("predicted.start_s[{i}]").to_string();
    if let Some(p) = previous
        && at < end[p as usize]
        && !close(at, end[p as usize], floor)
    {
        let p = p as usize;
        let (code, what) = if at + tasks[i].duration > start[p] {
            (ViolationCode::Overlap, "runs until")
        } else {
            (ViolationCode::StartMismatch, "comes first in the order and ends at")
        };
        let message = format!(
            "{at} s, but task {p} on the same rank {what} {} s; start task {i} then",
            end[p]
        );
        findings.add(code, path, message);
        return;
    }
    let due = earliest(&tasks[i], previous, end);
    if !close(at, due, floor) && !due.is_nan() {
        let message = format!("{at} s, but nothing holds task {i} after {due} s; start it then");
        findings.add(ViolationCode::StartMismatch, path, message);
    }
}

fn judge_end(i: usize, end: f64, start: f64, duration: f64, floor: f64, findings: &mut Findings) {
    let due = start + duration;
    if !close(end, due, floor) && !due.is_nan() {
        let message = format!(
            "{end} s, but task {i} starts at {start} s and takes {duration} s; end it at {due} s"
        );
        findings.add(ViolationCode::EndMismatch, format_args!("predicted.end_s[{i}]"), message);
    }
}

/// The first dependency that has not arrived at `at`.
fn broken_dependency(
    i: usize,
    tasks: &[TaskDraft],
    at: f64,
    end: &[f64],
    floor: f64,
) -> Option<usize> {
    tasks[i].known_deps().iter().position(|dep| {
        let arrival = end[dep.task.index()] + dep.comm_s.0;
        at < arrival && !close(at, arrival, floor)
    })
}

fn report_broken(
    i: usize,
    d: usize,
    tasks: &[TaskDraft],
    at: f64,
    end: &[f64],
    findings: &mut Findings,
) {
    let dep = tasks[i].known_deps()[d];
    let (ends, comm) = (end[dep.task.index()], dep.comm_s.0);
    let message = format!(
        "task {i} starts at {at} s, but task {} ends at {ends} s and its result takes {comm} s; start task {i} at {} s",
        dep.task,
        ends + comm
    );
    findings.add(ViolationCode::BrokenDependency, format_args!("tasks[{i}].deps[{d}]"), message);
}

/// What can be said of predicted times where the order gives none: dependencies, and tasks that run at once.
pub(super) fn check_alone(tasks: &[TaskDraft], plan: &PlanDraft, findings: &mut Findings) {
    let (Some(start), Some(end)) = (&plan.start, &plan.end) else { return };
    if start.len() != tasks.len() || end.len() != tasks.len() {
        return;
    }
    let floor = TOLERANCE * 1e-3 * end.iter().copied().fold(0.0, f64::max);
    let mut by_rank: Vec<usize> = (0..tasks.len()).collect();
    for (i, &at) in start.iter().enumerate() {
        if let Some(d) = broken_dependency(i, tasks, at, end, floor) {
            report_broken(i, d, tasks, at, end, findings);
        }
    }
    by_rank.retain(|&i| tasks[i].rank.is_some() && !start[i].is_nan() && !end[i].is_nan());
    by_rank.sort_by(|&a, &b| {
        let rank = tasks[a].rank.cmp(&tasks[b].rank);
        rank.then(start[a].total_cmp(&start[b])).then(end[a].total_cmp(&end[b]))
    });
    for pair in by_rank.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if tasks[a].rank == tasks[b].rank && start[b] < end[a] && !close(start[b], end[a], floor) {
            let message = format!(
                "{} s, but task {a} on the same rank runs until {} s; start task {b} then",
                start[b], end[a]
            );
            findings.add(ViolationCode::Overlap, format_args!("predicted.start_s[{b}]"), message);
        }
    }
}
