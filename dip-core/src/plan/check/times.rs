//! Start and end of every task, computed anew and compared with what the plan predicts.
//!
//! A predicted time is reported where it differs from the recomputed one *and* does not follow from the other predicted
//! times: so the place where a prediction goes wrong is named, not everything behind it.

use super::close;
use super::order::Sequence;
use crate::plan::draft::{PlanDraft, TaskDraft};
use crate::plan::findings::Findings;
use crate::plan::violation::ViolationCode;

/// Differences below this share of the makespan are rounding, however small the figures.
const FLOOR: f64 = 1e-9;

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
    // Where there is no usable prediction, the recomputed times stand in, and agree with themselves.
    let usable = |t: &'_ &[f64]| t.len() == tasks.len();
    let predicted = Predicted {
        tasks,
        start: plan.start.as_deref().filter(usable).unwrap_or(&times.start),
        end: plan.end.as_deref().filter(usable).unwrap_or(&times.end),
        floor: FLOOR * times.makespan,
    };
    let before = findings.violations.len();
    let mut astray = None;
    for i in 0..tasks.len() {
        let (start, end) = (predicted.start[i], predicted.end[i]);
        if predicted.differ(start, times.start[i]) {
            astray = astray.or(Some((ViolationCode::StartMismatch, i, start, times.start[i])));
            predicted.judge_start(i, sequence.previous[i], findings);
        }
        if predicted.differ(end, times.end[i]) {
            astray = astray.or(Some((ViolationCode::EndMismatch, i, end, times.end[i])));
            predicted.judge_end(i, findings);
        }
    }
    // Deviations within the tolerance of every single step can add up.
    if let (Some((code, i, found, due)), true) = (astray, findings.violations.len() == before)
        && !due.is_nan()
    {
        let field = if code == ViolationCode::StartMismatch { "start_s" } else { "end_s" };
        let message = format!("{found} s, but the order gives {due} s; recompute the plan");
        findings.add(code, format_args!("predicted.{field}[{i}]"), message);
    }
}

/// What can be said of predicted times where the order gives none: dependencies, and tasks that run at once. No time
/// satisfies the dependencies of the tasks of a `cycle`, and of tasks that are `astray` it is unclear on which rank they run.
pub(super) fn check_alone(
    tasks: &[TaskDraft],
    plan: &PlanDraft,
    cycle: &[u32],
    astray: &[bool],
    findings: &mut Findings,
) {
    let (Some(start), Some(end)) = (&plan.start, &plan.end) else { return };
    if start.len() != tasks.len() || end.len() != tasks.len() {
        return;
    }
    let floor = FLOOR * end.iter().copied().fold(0.0, f64::max);
    let predicted = Predicted { tasks, start, end, floor };
    let mut on_cycle = vec![false; tasks.len()];
    for &task in cycle {
        on_cycle[task as usize] = true;
    }
    for i in (0..tasks.len()).filter(|&i| !on_cycle[i]) {
        predicted.judge_dependencies(i, findings);
    }
    predicted.judge_overlaps(astray, findings);
}

/// The predicted times of a plan.
struct Predicted<'a> {
    tasks: &'a [TaskDraft],
    start: &'a [f64],
    end: &'a [f64],
    /// Differences below this are rounding, however small the figures.
    floor: f64,
}

impl Predicted<'_> {
    /// Whether a known time is not the one that is due.
    fn differ(&self, found: f64, due: f64) -> bool {
        !found.is_nan() && !close(found, due, self.floor)
    }

    /// Whether a time comes before another one; unknown times do not.
    fn precedes(&self, a: f64, b: f64) -> bool {
        a < b && !close(a, b, self.floor)
    }

    /// Names what is wrong with a start, given the predicted times of what comes before.
    fn judge_start(&self, i: usize, previous: Option<u32>, findings: &mut Findings) {
        if self.judge_dependencies(i, findings) {
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

    fn judge_end(&self, i: usize, findings: &mut Findings) {
        let (start, end, duration) = (self.start[i], self.end[i], self.tasks[i].duration);
        let due = start + duration;
        if self.differ(end, due) && !due.is_nan() {
            let message = format!(
                "{end} s, but task {i} starts at {start} s and takes {duration} s; end it at {due} s"
            );
            findings.add(ViolationCode::EndMismatch, format_args!("predicted.end_s[{i}]"), message);
        }
    }

    /// Reports the first dependency that has not arrived when a task starts. False where all have.
    fn judge_dependencies(&self, i: usize, findings: &mut Findings) -> bool {
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

    /// Reports tasks of one rank that run at once, in the order of their starts.
    fn judge_overlaps(&self, astray: &[bool], findings: &mut Findings) {
        let known = |&i: &usize| {
            let at_home = self.tasks[i].rank.is_some() && !astray.get(i).is_some_and(|&a| a);
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
