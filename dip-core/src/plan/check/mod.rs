//! The independent checker. It lists every violation of a graph or a plan at once.
//!
//! It shares no code with the schedules. It recomputes times, memory and pairs in the simplest way, so that it can serve as
//! the oracle of the fast paths. One wrong value gives one violation: checks that depend on a reported value are skipped.

mod memory;
mod order;
mod pairs;
mod precedence;
mod report;
mod shape;
mod times;

pub use report::{CheckReport, PlanSummary};

use std::collections::HashSet;

use crate::plan::draft::{DocumentDraft, PlanDraft, TaskDraft};
use crate::plan::findings::Findings;
use crate::plan::graph::TaskGraph;
use crate::plan::plan::{MAX_WINDOW, Plan};
use crate::plan::violation::{Violation, ViolationCode};
use crate::spec::RankId;
use order::CheckedOrder;
use pairs::StagePairs;
use precedence::dependency_edges;
use times::RecomputedTimes;

/// Tolerated relative difference between a predicted and a recomputed figure.
pub const TOLERANCE: f64 = 1e-6;
/// Share of the makespan by which rounding may lift a lower bound above it. A proven bound has no other error.
const BOUND_TOLERANCE: f64 = 1e-9;

/// Returns every violation of a plan, at most [`MAX_VIOLATIONS`](crate::MAX_VIOLATIONS).
pub fn check_plan(plan: &Plan) -> Vec<Violation> {
    let mut findings = Findings::default();
    let mut draft = DocumentDraft::from_plan(plan, &mut findings);
    check_draft(&mut draft, &mut findings);
    findings.violations
}

/// Returns every violation of a task graph, at most [`MAX_VIOLATIONS`](crate::MAX_VIOLATIONS).
pub fn check_graph(graph: &TaskGraph) -> Vec<Violation> {
    let mut findings = Findings::default();
    let mut draft = DocumentDraft::from_graph(graph, &mut findings);
    check_draft(&mut draft, &mut findings);
    findings.violations
}

/// Checks a draft. The violations of its form are already in `findings`.
pub(crate) fn check_draft(draft: &mut DocumentDraft, findings: &mut Findings) {
    let by_id = shape::check(draft, findings);
    let over = memory::check_static(draft, findings);
    let Some(tasks) = draft.tasks.as_deref().filter(|_| by_id) else { return };
    let mut stages = StagePairs::collect(tasks, findings);
    stages.check(tasks, findings);
    check_magnitude(tasks, findings);
    let cycle = check_cycles(tasks, &stages, findings);
    let Some(plan) = &draft.plan else { return };
    // If the number of ranks cannot be read, take the number of lists in the order.
    let lists = plan.order.as_ref().map(Vec::len);
    if let Some(ranks) = draft.ranks.map(|r| r as usize).or(lists) {
        stages.check_choices(tasks, findings);
        let context = PlanContext { draft, tasks, stages, cycle, over, ranks };
        check_plan_draft(plan, &context, findings);
    }
}

/// The results of the graph checks, which the checks of the order use.
struct PlanContext<'a> {
    draft: &'a DocumentDraft,
    tasks: &'a [TaskDraft],
    stages: StagePairs,
    /// Tasks of a dependency cycle; empty if there is none.
    cycle: Vec<u32>,
    /// Ranks whose static bytes exceed their limit.
    over: HashSet<usize>,
    ranks: usize,
}

fn check_plan_draft(plan: &PlanDraft, context: &PlanContext<'_>, findings: &mut Findings) {
    let tasks = context.tasks;
    let mut makespan = f64::NAN;
    if let Some(order) = &plan.order {
        let checked = order::check(tasks, order, context.ranks, context.cycle.is_empty(), findings);
        let wrong = order::check_stage_order(tasks, &checked.lists, &context.stages, findings);
        check_memory(plan, context, &checked, &wrong, findings);
        if let Some(sorted) = &checked.sorted {
            let times = times::recompute(tasks, sorted, &checked.previous);
            let before = findings.violations.len();
            times::check(tasks, plan, &checked, &times, findings);
            let consistent = findings.violations.len() == before;
            check_totals(plan, context, &times, consistent, findings);
            makespan = times.makespan;
        } else {
            times::check_alone(tasks, plan, &context.cycle, &checked.misplaced, findings);
        }
    } else {
        times::check_alone(tasks, plan, &context.cycle, &[], findings);
    }
    check_window(plan, findings);
    let makespan = if makespan.is_nan() { plan.makespan } else { makespan };
    check_bound(plan.lower_bound, makespan, findings);
}

fn check_window(plan: &PlanDraft, findings: &mut Findings) {
    let most = u64::from(MAX_WINDOW);
    if let Some(window) = plan.window.filter(|window| !(1..=most).contains(window)) {
        let message = format!("{window}, but must be 1 to {most}; 1 keeps the order");
        findings.add(ViolationCode::OutOfRange, "window", message);
    }
}

/// Checks that sums of times cannot overflow.
fn check_magnitude(tasks: &[TaskDraft], findings: &mut Findings) {
    let comm = tasks.iter().flat_map(TaskDraft::known_deps).map(|d| d.comm_s.0);
    let total: f64 = tasks.iter().map(|t| t.duration).chain(comm).filter(|t| !t.is_nan()).sum();
    if total.is_infinite() {
        let message = "the durations add up to more than a number can hold; give them in seconds";
        findings.add(ViolationCode::OutOfRange, "tasks", message);
    }
}

/// Returns the tasks of a cycle of dependencies and pair edges; empty if there is none.
fn check_cycles(tasks: &[TaskDraft], stages: &StagePairs, findings: &mut Findings) -> Vec<u32> {
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
    context: &PlanContext<'_>,
    checked: &CheckedOrder,
    wrong: &[bool],
    findings: &mut Findings,
) {
    if !context.stages.complete {
        return;
    }
    let entry = |list: &Option<Vec<_>>, r: usize| list.as_ref().and_then(|l| *l.get(r)?);
    for (r, list) in checked.lists.iter().enumerate() {
        let sound = !wrong[r] && !context.stages.unsound.contains(&RankId::from(r));
        let static_bytes = entry(&context.draft.static_bytes, r).filter(|_| sound);
        if let (Some(list), Some(static_bytes)) = (list, static_bytes)
            && let Some(peak) = memory::peak(context.tasks, list, &context.stages, static_bytes)
        {
            let limit =
                entry(&context.draft.memory_limit, r).filter(|_| !context.over.contains(&r));
            // A deadlocked order has no peak to compare with.
            let predicted = entry(&plan.peak, r).filter(|_| checked.deadlock_free);
            memory::check_peak(r, peak, limit, predicted, findings);
        }
    }
}

/// Checks the totals. Totals that follow from a wrong time are not reported again.
fn check_totals(
    plan: &PlanDraft,
    context: &PlanContext<'_>,
    times: &RecomputedTimes,
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
    let busy: f64 = context.tasks.iter().map(|t| t.duration).sum();
    let bubble_of = |makespan: f64| 1.0 - busy / (context.ranks as f64 * makespan);
    let (bubble, stated) = (bubble_of(makespan), bubble_of(plan.makespan));
    let off = |expected: f64| (plan.bubble_ratio - expected).abs() > TOLERANCE;
    // The ratio is itself relative, so its tolerance is absolute. It is undefined for an empty timeline.
    if makespan > 0.0 && off(bubble) && (consistent || off(stated)) {
        let message =
            format!("{}, but the order gives {bubble}; recompute the plan", plan.bubble_ratio);
        findings.add(ViolationCode::BubbleMismatch, "predicted.bubble_ratio", message);
    }
}

fn check_bound(bound: f64, makespan: f64, findings: &mut Findings) {
    if bound > makespan * (1.0 + BOUND_TOLERANCE) {
        let message = format!(
            "{bound} s is above the makespan of {makespan} s, so it bounds nothing; give a proven bound or 0"
        );
        findings.add(ViolationCode::BoundAboveMakespan, "lower_bound_s", message);
    }
}

/// True if two figures are equal within the tolerance or within `floor`. NaN equals nothing.
fn close(a: f64, b: f64, floor: f64) -> bool {
    (a - b).abs() <= (TOLERANCE * a.abs().max(b.abs())).max(floor)
}

/// True if two figures are equal within the tolerance or one of them is unknown (NaN).
fn same(a: f64, b: f64) -> bool {
    a.is_nan() || b.is_nan() || close(a, b, 0.0)
}
