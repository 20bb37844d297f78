//! Recomputes start and end of every task and compares them with the prediction.
//!
//! A predicted time is reported if it differs from the recomputed time *and* does not follow from the other predicted
//! times. The report thus names the place where a prediction goes wrong, not every task after it.

use super::close;
use super::order::CheckedOrder;
use crate::plan::draft::{PlanDraft, TaskDraft};
use crate::plan::findings::Findings;
use crate::plan::violation::ViolationCode;

/// Differences below this share of the makespan are rounding errors.
const FLOOR: f64 = 1e-9;

/// Recomputed times of every task. A time is NaN if it depends on a value that could not be read.
pub(super) struct RecomputedTimes {
    pub(super) start: Vec<f64>,
    pub(super) end: Vec<f64>,
    pub(super) makespan: f64,
}

/// Returns the later of two times; NaN if one of them is NaN.
fn later(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Runs the order. Every task starts as soon as its rank is free and its inputs have arrived.
pub(super) fn recompute(
    tasks: &[TaskDraft],
    sorted: &[u32],
    previous: &[Option<u32>],
) -> RecomputedTimes {
    let n = tasks.len();
    let mut times =
        RecomputedTimes { start: vec![f64::NAN; n], end: vec![f64::NAN; n], makespan: 0.0 };
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
    checked: &CheckedOrder,
    times: &RecomputedTimes,
    findings: &mut Findings,
) {
    // Without a usable prediction the recomputed times stand in, so that nothing is reported.
    let usable = |t: &'_ &[f64]| t.len() == tasks.len();
    let predicted = PredictedTimes {
        tasks,
        start: plan.start.as_deref().filter(usable).unwrap_or(&times.start),
        end: plan.end.as_deref().filter(usable).unwrap_or(&times.end),
        floor: FLOOR * times.makespan,
    };
    let before = findings.violations.len();
    let mut first_deviation = None;
    for i in 0..tasks.len() {
        let (start, end) = (predicted.start[i], predicted.end[i]);
        if predicted.differ(start, times.start[i]) {
            first_deviation =
                first_deviation.or(Some((ViolationCode::StartMismatch, i, start, times.start[i])));
            predicted.check_start(i, checked.previous[i], findings);
        }
        if predicted.differ(end, times.end[i]) {
            first_deviation =
                first_deviation.or(Some((ViolationCode::EndMismatch, i, end, times.end[i])));
            predicted.check_end(i, findings);
        }
    }
    // Deviations within the tolerance of each step can add up.
    if let (Some((code, i, found, due)), true) =
        (first_deviation, findings.violations.len() == before)
        && !due.is_nan()
    {
        let field = if code == ViolationCode::StartMismatch { "start_s" } else { "end_s" };
        let message = format!("{found} s, but the order gives {due} s; recompute the plan");
        findings.add(code, format_args!("predicted.{field}[{i}]"), message);
    }
}

/// Checks predicted times without a valid order: dependencies, and tasks that overlap on a rank. Skips the dependencies of
/// tasks on a `cycle`, which no times satisfy, and overlaps of `misplaced` tasks, whose rank is unclear.
pub(super) fn check_alone(
    tasks: &[TaskDraft],
    plan: &PlanDraft,
    cycle: &[u32],
    misplaced: &[bool],
    findings: &mut Findings,
) {
    let (Some(start), Some(end)) = (&plan.start, &plan.end) else { return };
    if start.len() != tasks.len() || end.len() != tasks.len() {
        return;
    }
    let floor = FLOOR * end.iter().copied().fold(0.0, f64::max);
    let predicted = PredictedTimes { tasks, start, end, floor };
    let mut on_cycle = vec![false; tasks.len()];
    for &task in cycle {
        on_cycle[task as usize] = true;
    }
    for i in (0..tasks.len()).filter(|&i| !on_cycle[i]) {
        predicted.check_dependencies(i, findings);
    }
    predicted.check_overlaps(misplaced, findings);
}

/// The predicted times of a plan.
struct PredictedTimes<'a> {
    tasks: &'a [TaskDraft],
    start: &'a [f64],
    end: &'a [f64],
    /// Differences below this are rounding errors.
    floor: f64,
}

impl PredictedTimes<'_> {
    /// True if a known time differs from the expected one.
    fn differ(&self, found: f64, due: f64) -> bool {
        !found.is_nan() && !close(found, due, self.floor)
    }

    /// True if `a` is earlier than `b`. NaN is never earlier.
    fn precedes(&self, a: f64, b: f64) -> bool {
        a < b && !close(a, b, self.floor)
    }

    /// Reports why a start is wrong, given the predicted times of earlier tasks.
    fn check_start(&self, i: usize, previous: Option<u32>, findings: &mut Findings) {
        if self.check_dependencies(i, findings) {
            return;
        }
        let at = self.start[i];
        let due = earliest(&self.tasks[i], previous, self.end);
        let busy = previous.map(|p| p as usize).filter(|&p| self.precedes(at, self.end[p]));
        let (code, message) = match busy {
            Some(p) if at + self.tasks[i].duration > self.start[p] => {
                (ViolationCode::Overlap, self.overlap(i, p))
            }
            Some(p) => {
                let message = format!(
                    "{at} s, but task {p} comes first in the order of the rank and ends at {} s; start task {i} then",
                    self.end[p]
                );
                (ViolationCode::StartMismatch, message)
            }
            None if self.precedes(due, at) => {
                let message =
                    format!("{at} s, but nothing holds task {i} after {due} s; start it then");
                (ViolationCode::StartMismatch, message)
            }
            None => return,
        };
        findings.add(code, format_args!("predicted.start_s[{i}]"), message);
    }

    fn check_end(&self, i: usize, findings: &mut Findings) {
        let (start, end, duration) = (self.start[i], self.end[i], self.tasks[i].duration);
        let due = start + duration;
        if self.differ(end, due) && !due.is_nan() {
            let message = format!(
                "{end} s, but task {i} starts at {start} s and takes {duration} s; end it at {due} s"
            );
            findings.add(ViolationCode::EndMismatch, format_args!("predicted.end_s[{i}]"), message);
        }
    }

    /// Reports the first dependency that arrives after the start of task `i`. Returns false if all arrive in time.
    fn check_dependencies(&self, i: usize, findings: &mut Findings) -> bool {
        let at = self.start[i];
        for (d, dep) in self.tasks[i].known_deps().iter().enumerate() {
            let (end, comm) = (self.end[dep.task.index()], dep.comm_s.0);
            if self.precedes(at, end + comm) {
                let message = format!(
                    "task {i} starts at {at} s, but task {} ends at {end} s and its result takes {comm} s; \
                     start task {i} at {} s",
                    dep.task,
                    end + comm
                );
                let path = format_args!("tasks[{i}].deps[{d}]");
                findings.add(ViolationCode::BrokenDependency, path, message);
                return true;
            }
        }
        false
    }

    /// Reports tasks that overlap on a rank, in the order of their starts.
    fn check_overlaps(&self, misplaced: &[bool], findings: &mut Findings) {
        let known = |&i: &usize| {
            let at_home = self.tasks[i].rank.is_some() && !misplaced.get(i).is_some_and(|&a| a);
            at_home && !self.start[i].is_nan() && !self.end[i].is_nan()
        };
        let mut by_rank: Vec<usize> = (0..self.tasks.len()).filter(known).collect();
        by_rank.sort_by(|&a, &b| {
            let rank = self.tasks[a].rank.cmp(&self.tasks[b].rank);
            let start = self.start[a].total_cmp(&self.start[b]);
            rank.then(start).then(self.end[a].total_cmp(&self.end[b]))
        });
        for pair in by_rank.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            if self.tasks[a].rank == self.tasks[b].rank && self.precedes(self.start[b], self.end[a])
            {
                let path = format_args!("predicted.start_s[{b}]");
                findings.add(ViolationCode::Overlap, path, self.overlap(b, a));
            }
        }
    }

    fn overlap(&self, i: usize, other: usize) -> String {
        format!(
            "{} s, but task {other} on the same rank runs until {} s; start task {i} then",
            self.start[i], self.end[other]
        )
    }
}
