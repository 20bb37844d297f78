//! The independent checker: every violation of a graph or a plan, at once.
//!
//! It shares no code with what makes plans: times, memory and pairs are computed anew in the simplest way, so that it is the
//! oracle of the fast paths. One wrong value gives one violation: what hangs on a value that is reported is not judged.

mod memory;
mod order;
mod pairs;
mod precedence;
mod report;
mod shape;
mod times;

pub use report::{CheckReport, PlanSummary};

use std::collections::HashSet;

use crate::plan::draft::{Draft, PlanDraft, TaskDraft};
use crate::plan::findings::Findings;
use crate::plan::graph::TaskGraph;
use crate::plan::plan::Plan;
use crate::plan::violation::{Violation, ViolationCode};
use crate::spec::RankId;
use order::Sequence;
use pairs::Stages;
use precedence::dependency_edges;
use times::Times;

/// Largest relative difference between a predicted and a recomputed figure.
pub const TOLERANCE: f64 = 1e-6;

/// Every violation of a plan, at most [`MAX_VIOLATIONS`].
pub fn check_plan(plan: &Plan) -> Vec<Violation> {
    let mut findings = Findings::default();
    let mut draft = Draft::from_plan(plan, &mut findings);
    check_draft(&mut draft, &mut findings);
    findings.violations
}

/// Every violation of a task graph, at most [`MAX_VIOLATIONS`].
pub fn check_graph(graph: &TaskGraph) -> Vec<Violation> {
    let mut findings = Findings::default();
    let mut draft = Draft::from_graph(graph, &mut findings);
    check_draft(&mut draft, &mut findings);
    findings.violations
}

/// Checks a draft. The violations of its form are already in `findings`.
pub(crate) fn check_draft(draft: &mut Draft, findings: &mut Findings) {
    let by_id = shape::check(draft, findings);
    let over = memory::check_static(draft, findings);
    let Some(tasks) = draft.tasks.as_deref().filter(|_| by_id) else { return };
    let mut stages = Stages::collect(tasks, findings);
    stages.check(tasks, findings);
    check_magnitude(tasks, findings);
    let cycle = check_cycles(tasks, &stages, findings);
    let Some(plan) = &draft.plan else { return };
    // Where the number of ranks cannot be read, the order has one list for each.
    let lists = plan.order.as_ref().map(Vec::len);
    if let Some(ranks) = draft.ranks.map(|r| r as usize).or(lists) {
        stages.check_choices(tasks, findings);
        let judged = Judged { draft, tasks, stages, cycle, over, ranks };
        judge_plan(plan, &judged, findings);
    }
}

/// What is known of a plan before its order is judged.
struct Judged<'a> {
    draft: &'a Draft,
    tasks: &'a [TaskDraft],
    stages: Stages,
    /// Tasks of a cycle of dependencies; empty where there is none.
    cycle: Vec<u32>,
    /// Ranks that are over their limit before the first task.
    over: HashSet<usize>,
    ranks: usize,
}

fn judge_plan(plan: &PlanDraft, judged: &Judged<'_>, findings: &mut Findings) {
    let tasks = judged.tasks;
    let mut makespan = f64::NAN;
    if let Some(order) = &plan.order {
        let sequence = order::check(tasks, order, judged.ranks, judged.cycle.is_empty(), findings);
        let wrong = order::check_stage_order(tasks, &sequence.lists, &judged.stages, findings);
        check_memory(plan, judged, &sequence, &wrong, findings);
        if let Some(sorted) = &sequence.sorted {
            let times = times::recompute(tasks, sorted, &sequence.previous);
            let before = findings.violations.len();
            times::check(tasks, plan, &sequence, &times, findings);
            let consistent = findings.violations.len() == before;
            check_totals(plan, judged, &times, consistent, findings);
            makespan = times.makespan;
        } else {
            times::check_alone(tasks, plan, &judged.cycle, &sequence.astray, findings);
        }
    } else {
        times::check_alone(tasks, plan, &judged.cycle, &[], findings);
    }
    let makespan = if makespan.is_nan() { plan.makespan } else { makespan };
    check_bound(plan.lower_bound, makespan, findings);
}

/// Checks that no sum of times can overflow.
fn check_magnitude(tasks: &[TaskDraft], findings: &mut Findings) {
    let comm = tasks.iter().flat_map(TaskDraft::known_deps).map(|d| d.comm_s.0);
    let total: f64 = tasks.iter().map(|t| t.duration).chain(comm).filter(|t| !t.is_nan()).sum();
    if total.is_infinite() {
        let message = "the durations add up to more than a number can hold; give them in seconds";
        findings.add(ViolationCode::OutOfRange, "tasks", message);
    }
}

/// The tasks of a cycle of the dependencies and the order inside the pairs; empty where there is none.
fn check_cycles(tasks: &[TaskDraft], stages: &Stages, findings: &mut Findings) -> Vec<u32> {
    match precedence::sort(tasks.len(), dependency_edges(tasks).chain(stages.edges())) {
        Ok(_) => Vec::new(),
        Err(cycle) => {
            let path = format_args!("tasks[{}].deps", cycle[0]).to_string();
            let message = format!(
                "the dependencies form a cycle through tasks {}; remove one of them",
                precedence::describe(&cycle)
            );
            findings.add(ViolationCode::DependencyCycle, path, message);
            cycle
        }
    }
}

fn check_memory(
    plan: &PlanDraft,
    judged: &Judged<'_>,
    sequence: &Sequence,
    wrong: &[bool],
    findings: &mut Findings,
) {
    if !judged.stages.complete {
        return;
    }
    let entry = |list: &Option<Vec<_>>, r: usize| list.as_ref().and_then(|l| *l.get(r)?);
    for (r, list) in sequence.lists.iter().enumerate() {
        let sound = !wrong[r] && !judged.stages.unsound.contains(&RankId::from(r));
        let static_bytes = entry(&judged.draft.static_bytes, r).filter(|_| sound);
        if let (Some(list), Some(static_bytes)) = (list, static_bytes)
            && let Some(peak) = memory::peak(judged.tasks, list, &judged.stages, static_bytes)
        {
            let limit = entry(&judged.draft.memory_limit, r).filter(|_| !judged.over.contains(&r));
            // What never ends has no figures to compare with.
            let predicted = entry(&plan.peak, r).filter(|_| sequence.runs);
            memory::check_peak(r, peak, limit, predicted, findings);
        }
    }
}

/// Checks the totals. Where single times are wrong and reported, totals that follow from them are not.
fn check_totals(
    plan: &PlanDraft,
    judged: &Judged<'_>,
    times: &Times,
    consistent: bool,
    findings: &mut Findings,
) {
    let makespan = times.makespan;
    let ends = plan.end.as_deref().filter(|_| !consistent).unwrap_or_default();
    let last = ends.iter().copied().fold(f64::NAN, f64::max);
    if !same(plan.makespan, makespan) && !close(plan.makespan, last, 0.0) {
        let message = format!(
            "{} s, but the last task ends at {makespan} s; recompute the plan",
            plan.makespan
        );
        findings.add(ViolationCode::MakespanMismatch, "predicted.makespan_s", message);
    }
    let busy: f64 = judged.tasks.iter().map(|t| t.duration).sum();
    let bubble_of = |makespan: f64| 1.0 - busy / (judged.ranks as f64 * makespan);
    let (bubble, stated) = (bubble_of(makespan), bubble_of(plan.makespan));
    let off = |expected: f64| (plan.bubble_ratio - expected).abs() > TOLERANCE;
    // The ratio is relative itself, and is not defined where nothing takes time.
    if makespan > 0.0 && off(bubble) && (consistent || off(stated)) {
        let message =
            format!("{}, but the order gives {bubble}; recompute the plan", plan.bubble_ratio);
        findings.add(ViolationCode::BubbleMismatch, "predicted.bubble_ratio", message);
    }
}

fn check_bound(bound: f64, makespan: f64, findings: &mut Findings) {
    if bound > makespan && !close(bound, makespan, 0.0) {
        let message = format!(
            "{bound} s is above the makespan of {makespan} s, so it bounds nothing; give a proven bound or 0"
        );
        findings.add(ViolationCode::BoundAboveMakespan, "lower_bound_s", message);
    }
}

/// Whether two figures are equal within the tolerance, or `floor` apart. Unknown figures are not.
fn close(a: f64, b: f64, floor: f64) -> bool {
    (a - b).abs() <= (TOLERANCE * a.abs().max(b.abs())).max(floor)
}

/// Whether two figures are equal within the tolerance, or one of them is unknown.
fn same(a: f64, b: f64) -> bool {
    a.is_nan() || b.is_nan() || close(a, b, 0.0)
}
