//! Topological order of a set of tasks, or a cycle among them.

use std::fmt::Write;

use crate::plan::draft::TaskDraft;

/// Number of tasks that a message names; the rest are counted.
const SHOWN: usize = 12;

/// `before -> after`.
pub(super) type Edge = (u32, u32);

/// The dependencies of the tasks as edges.
pub(super) fn dependency_edges(tasks: &[TaskDraft]) -> impl Iterator<Item = Edge> + Clone {
    let tasks = tasks.iter().enumerate();
    tasks.flat_map(|(i, t)| t.known_deps().iter().map(move |d| (d.task.0, i as u32)))
}

/// Sorts `0..n` so that every edge points forward.
///
/// # Errors
/// The nodes of one cycle, each before the next and the last before the first.
pub(super) fn sort(
    n: usize,
    edges: impl Iterator<Item = Edge> + Clone,
) -> Result<Vec<u32>, Vec<u32>> {
    let mut waiting = vec![0usize; n];
    let mut offsets = vec![0usize; n + 1];
    for (before, after) in edges.clone() {
        waiting[after as usize] += 1;
        offsets[before as usize + 1] += 1;
    }
    for i in 0..n {
        offsets[i + 1] += offsets[i];
    }
    let mut successors = vec![0u32; offsets[n]];
    let mut cursor = offsets.clone();
    for (before, after) in edges.clone() {
        successors[cursor[before as usize]] = after;
        cursor[before as usize] += 1;
    }
    let mut sorted: Vec<u32> = (0..n as u32).filter(|&i| waiting[i as usize] == 0).collect();
    let mut next = 0;
    while let Some(&node) = sorted.get(next) {
        next += 1;
        for &after in &successors[offsets[node as usize]..offsets[node as usize + 1]] {
            waiting[after as usize] -= 1;
            if waiting[after as usize] == 0 {
                sorted.push(after);
            }
        }
    }
    if sorted.len() == n { Ok(sorted) } else { Err(cycle(&waiting, edges)) }
}

/// Finds a cycle among the nodes that still wait. Each of them waits for another one, so a walk backwards meets a node
/// again.
fn cycle(waiting: &[usize], edges: impl Iterator<Item = Edge>) -> Vec<u32> {
    let mut awaited = vec![None; waiting.len()];
    for (before, after) in edges {
        if waiting[before as usize] > 0 && waiting[after as usize] > 0 {
            awaited[after as usize].get_or_insert(before);
        }
    }
    let mut at = waiting.iter().position(|&w| w > 0).unwrap_or(0) as u32;
    let mut seen_at = vec![usize::MAX; waiting.len()];
    let mut walk = Vec::new();
    while seen_at[at as usize] == usize::MAX {
        seen_at[at as usize] = walk.len();
        walk.push(at);
        match awaited[at as usize] {
            Some(before) => at = before,
            None => break,
        }
    }
    let mut cycle = walk.split_off(seen_at[at as usize]);
    cycle.reverse();
    cycle
}

/// Formats a cycle as `3 -> 5 -> 3`. A long one is shortened.
pub(super) fn describe(cycle: &[u32]) -> String {
    let mut text = String::new();
    for task in cycle.iter().take(SHOWN) {
        let _ = write!(text, "{task} -> ");
    }
    if cycle.len() > SHOWN {
        let _ = write!(text, "... ({} tasks in all) -> ", cycle.len());
    }
    if let Some(first) = cycle.first() {
        let _ = write!(text, "{first}");
    }
    text
}
