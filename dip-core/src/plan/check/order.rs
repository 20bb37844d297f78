//! The order of execution: it lists every task once, on its own rank, and does not deadlock.

use super::pairs::{StagePairs, describe};
use super::precedence::{self, dependency_edges};
use crate::plan::draft::{ListDraft, TaskDraft};
use crate::plan::findings::Findings;
use crate::plan::violation::ViolationCode;

/// What the checks of the order found.
pub(super) struct CheckedOrder {
    /// For each task, the previous task on its rank.
    pub(super) previous: Vec<Option<u32>>,
    /// The order of each rank; `None` if it does not list exactly the tasks of the rank.
    pub(super) lists: Vec<Option<Vec<u32>>>,
    /// All tasks in topological order of dependencies and rank order; `None` if there is none or a list is wrong.
    pub(super) sorted: Option<Vec<u32>>,
    /// For each task, true if it is listed only on ranks that are not its own.
    pub(super) misplaced: Vec<bool>,
    /// True if order and dependencies, as far as they are known, do not deadlock.
    pub(super) deadlock_free: bool,
}

/// Checks the order. `acyclic` is false if the dependencies alone form a cycle.
pub(super) fn check(
    tasks: &[TaskDraft],
    order: &[ListDraft],
    ranks: usize,
    acyclic: bool,
    findings: &mut Findings,
) -> CheckedOrder {
    let mut places = vec![Listing::Nowhere; tasks.len()];
    let covered = check_coverage(tasks, order, &mut places[..], ranks, findings);
    let misplaced = places.iter().map(|&place| place == Listing::Misplaced).collect();
    let mut previous = vec![None; tasks.len()];
    let mut lists = Vec::with_capacity(order.len());
    for (list, covered) in order.iter().zip(&covered) {
        let ids: Option<Vec<u32>> = list.ids.iter().map(|id| id.map(|t| t.0)).collect();
        let ids = ids.filter(|_| *covered);
        for pair in ids.as_deref().unwrap_or_default().windows(2) {
            previous[pair[1] as usize] = Some(pair[0]);
        }
        lists.push(ids);
    }
    let complete = lists.len() == ranks && lists.iter().all(Option::is_some);
    let sorted = if acyclic { check_deadlock(tasks, &previous, findings) } else { None };
    let deadlock_free = sorted.is_some();
    CheckedOrder { previous, lists, sorted: sorted.filter(|_| complete), misplaced, deadlock_free }
}

/// Fills `places` and returns, for each list, whether it holds exactly the tasks of its rank.
fn check_coverage(
    tasks: &[TaskDraft],
    order: &[ListDraft],
    places: &mut [Listing],
    ranks: usize,
    findings: &mut Findings,
) -> Vec<bool> {
    let readable = |list: &ListDraft| list.readable && list.ids.iter().all(Option::is_some);
    let mut covered: Vec<bool> =
        order.iter().enumerate().map(|(r, list)| r < ranks && readable(list)).collect();
    for (r, list) in order.iter().enumerate().take(ranks) {
        let ids = list.ids.iter().enumerate();
        for (p, id) in ids.filter_map(|(p, id)| Some((p, id.as_ref()?.index()))) {
            let path = format_args!("order[{r}][{p}]");
            match (tasks[id].rank, places[id]) {
                (Some(home), _) if home.index() != r => {
                    let message = format!(
                        "task {id} belongs to rank {home}, not to rank {r}; list it in order[{home}]"
                    );
                    findings.add(ViolationCode::WrongRank, path, message);
                    if places[id] == Listing::Nowhere {
                        places[id] = Listing::Misplaced;
                    }
                    covered[r] = false;
                }
                (_, Listing::At(r0, p0)) => {
                    let message =
                        format!("task {id} is already listed at order[{r0}][{p0}]; list it once");
                    findings.add(ViolationCode::DuplicateTask, path, message);
                    covered[r] = false;
                }
                _ => places[id] = Listing::At(r, p),
            }
        }
    }
    check_missing(tasks, order, places, &mut covered, findings);
    covered
}

/// The place at which the order lists a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    Nowhere,
    /// Only on ranks that are not its own. This is reported.
    Misplaced,
    /// Rank and position.
    At(usize, usize),
}

fn check_missing(
    tasks: &[TaskDraft],
    order: &[ListDraft],
    places: &[Listing],
    covered: &mut [bool],
    findings: &mut Findings,
) {
    let mut uncovered = vec![0usize; order.len()];
    for (i, task) in
        tasks.iter().enumerate().filter(|(i, _)| !matches!(places[*i], Listing::At(..)))
    {
        let Some(rank) = task.rank.map(|r| r.index()) else { continue };
        let Some(list) = order.get(rank) else { continue };
        covered[rank] = false;
        if places[i] == Listing::Misplaced || !list.readable || list.ids.iter().any(Option::is_none)
        {
            continue;
        }
        if list.ids.is_empty() {
            uncovered[rank] += 1;
            continue;
        }
        let message = format!("{} is not listed; add it", describe(i, task));
        findings.add(ViolationCode::MissingTask, format_args!("order[{rank}]"), message);
    }
    for (rank, &count) in uncovered.iter().enumerate().filter(|(_, count)| **count > 0) {
        let message = format!("empty, but rank {rank} has {count} tasks; list them");
        findings.add(ViolationCode::RankNotCovered, format_args!("order[{rank}]"), message);
    }
}

fn check_deadlock(
    tasks: &[TaskDraft],
    previous: &[Option<u32>],
    findings: &mut Findings,
) -> Option<Vec<u32>> {
    let ranked = previous.iter().enumerate().filter_map(|(i, p)| Some(((*p)?, i as u32)));
    match precedence::sort(tasks.len(), dependency_edges(tasks).chain(ranked)) {
        Ok(sorted) => Some(sorted),
        Err(cycle) => {
            let message = format!(
                "order and dependencies wait for each other: tasks {}; reorder one of them",
                precedence::describe(&cycle)
            );
            findings.add(ViolationCode::OrderDeadlock, "order", message);
            None
        }
    }
}

/// Checks that each backward runs after its forward and each weight task after its backward. A wrong order is not reported
/// again if a dependency states the same, because that is a deadlock. Returns, for each rank, whether a pair is out of order.
pub(super) fn check_stage_order(
    tasks: &[TaskDraft],
    lists: &[Option<Vec<u32>>],
    stages: &StagePairs,
    findings: &mut Findings,
) -> Vec<bool> {
    let mut wrong = vec![false; lists.len()];
    let mut position = vec![usize::MAX; tasks.len()];
    for (p, &id) in lists.iter().flatten().flat_map(|list| list.iter().enumerate()) {
        position[id as usize] = p;
    }
    for (before, after) in stages.edges() {
        let (b, a) = (before as usize, after as usize);
        let Some(rank) = tasks[a].rank.map(|r| r.index()) else { continue };
        if position[a] >= position[b] {
            continue;
        }
        wrong[rank] = true;
        if tasks[a].known_deps().iter().all(|d| d.task.0 != before) {
            let path = format_args!("order[{rank}][{}]", position[a]).to_string();
            let message = format!(
                "{} runs before task {before} of its pair; swap them",
                describe(a, &tasks[a])
            );
            findings.add(ViolationCode::StageOrder, path, message);
        }
    }
    wrong
}
