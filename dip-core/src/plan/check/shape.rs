//! Lengths, ranges and identifiers. These checks come first, because later checks look values up by id.
//!
//! A value out of range is reported and removed from the draft, so that later checks neither use nor report it.

use crate::plan::draft::{DocumentDraft, PlanDraft, TaskDraft};
use crate::plan::findings::Findings;
use crate::plan::graph::MAX_RANKS;
use crate::plan::violation::ViolationCode;
use crate::spec::RankId;

/// Checks lengths, ranges and ids. Returns true if the id of every task is its position.
pub(super) fn check(draft: &mut DocumentDraft, findings: &mut Findings) -> bool {
    check_ranks(draft, findings);
    let ranks = draft.ranks.map(|r| r as usize);
    check_length("memory_limit_bytes", &draft.memory_limit, ranks, "ranks", findings);
    check_length("static_bytes", &draft.static_bytes, ranks, "ranks", findings);
    let n = draft.tasks.as_ref().map(Vec::len);
    let mut by_id = true;
    let mut deps = DepsCheck { named_by: vec![usize::MAX; n.unwrap_or(0)] };
    for (i, task) in draft.tasks.iter_mut().flatten().enumerate() {
        by_id &= check_id(i, task, findings);
        check_rank(i, task, ranks, findings);
        deps.check(i, task, findings);
    }
    if let Some(plan) = &mut draft.plan {
        check_order(plan, n, ranks, findings);
        check_length("predicted.start_s", &plan.start, n, "tasks", findings);
        check_length("predicted.end_s", &plan.end, n, "tasks", findings);
        check_length("predicted.peak_bytes", &plan.peak, ranks, "ranks", findings);
    }
    by_id
}

fn check_ranks(draft: &mut DocumentDraft, findings: &mut Findings) {
    draft.ranks = draft.ranks.filter(|&ranks| {
        let fits = (1..=MAX_RANKS as u64).contains(&ranks);
        if !fits {
            let message = format!("{ranks}, but must be 1 to {MAX_RANKS}; correct the number");
            findings.add(ViolationCode::OutOfRange, "ranks", message);
        }
        fits
    });
}

fn check_length<T>(
    path: &str,
    list: &Option<Vec<T>>,
    expected: Option<usize>,
    per: &str,
    findings: &mut Findings,
) {
    if let (Some(list), Some(expected)) = (list, expected)
        && list.len() != expected
    {
        let message = format!(
            "{} entries, but must have {expected}, as there are {expected} {per}; add or remove entries",
            list.len()
        );
        findings.add(ViolationCode::WrongLength, path, message);
    }
}

fn check_id(i: usize, task: &TaskDraft, findings: &mut Findings) -> bool {
    if let Some(id) = task.id
        && id.index() != i
    {
        let message = format!(
            "{id}, but must be {i}, the position of the task; number tasks from 0 in order"
        );
        findings.add(ViolationCode::IdMismatch, format_args!("tasks[{i}].id"), message);
        return false;
    }
    true
}

fn check_rank(i: usize, task: &mut TaskDraft, ranks: Option<usize>, findings: &mut Findings) {
    if let (Some(rank), Some(ranks)) = (task.rank, ranks)
        && rank.index() >= ranks
    {
        let message = format!("{rank}, but must be below ranks = {ranks}; move the task");
        findings.add(ViolationCode::OutOfRange, format_args!("tasks[{i}].rank"), message);
        task.rank = None::<RankId>;
    }
}

/// Checks the dependencies of one task after another.
struct DepsCheck {
    /// For each task of the document, the last task that names it as a dependency; `usize::MAX` if there is none yet.
    named_by: Vec<usize>,
}

impl DepsCheck {
    fn check(&mut self, i: usize, task: &mut TaskDraft, findings: &mut Findings) {
        let Some(deps) = &task.deps else { return };
        let n = self.named_by.len();
        let mut in_range = true;
        for (d, dep) in deps.iter().enumerate() {
            let id = dep.task;
            let Some(named_by) = self.named_by.get_mut(id.index()) else {
                let message = format!("{id}, but there are {n} tasks; name a task of the document");
                let path = format_args!("tasks[{i}].deps[{d}].task");
                findings.add(ViolationCode::OutOfRange, path, message);
                in_range = false;
                continue;
            };
            if *named_by == i {
                let message = format!(
                    "task {i} already depends on task {id}; keep one edge, with the larger comm_s"
                );
                let path = format_args!("tasks[{i}].deps[{d}]");
                findings.add(ViolationCode::DuplicateDependency, path, message);
            }
            *named_by = i;
        }
        if !in_range {
            task.deps = None;
        }
    }
}

fn check_order(
    plan: &mut PlanDraft,
    n: Option<usize>,
    ranks: Option<usize>,
    findings: &mut Findings,
) {
    check_length("order", &plan.order, ranks, "ranks", findings);
    let Some(n) = n else { return };
    for (r, list) in plan.order.iter_mut().flatten().enumerate() {
        for (i, slot) in list.ids.iter_mut().enumerate() {
            if let Some(id) = slot.filter(|id| id.index() >= n) {
                let message = format!("{id}, but there are {n} tasks; list existing tasks only");
                findings.add(ViolationCode::OutOfRange, format_args!("order[{r}][{i}]"), message);
                *slot = None;
            }
        }
    }
}
