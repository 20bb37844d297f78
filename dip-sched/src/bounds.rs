//! Proven lower bounds on the makespan of a task graph.
//!
//! Every pair is taken at the fastest duration of each of its tasks over its candidates, so the bound holds for every plan
//! whatever it chooses. Of these the largest is given:
//!
//! 1. the critical path;
//! 2. for each rank, the preemptive one-machine bound of Jackson: tasks released at their heads, delivered by their tails.
//!    It is at least (smallest head + load + smallest tail) of every subset of the rank's tasks;
//! 3. heads and tails themselves are sharpened: a task cannot start before its rank has run all its ancestors on that rank,
//!    and the end is at least as far away as its rank needs for all its descendants there.

use dip_core::{ScheduleError, Seconds, TaskGraph};

use crate::problem::Problem;

/// A time below which no valid plan of the graph can end.
///
/// # Errors
/// As every schedule: [`ScheduleError::Cycle`] and malformed graphs.
pub fn lower_bound(graph: &TaskGraph) -> Result<Seconds, ScheduleError> {
    Ok(Seconds(lower_bound_of(&Problem::new(graph, "bound")?)))
}

/// The bound of a flat problem.
pub(crate) fn lower_bound_of(problem: &Problem) -> f64 {
    let (dur, head, tail) = heads_and_tails(problem);
    let path = (0..problem.n).map(|i| head[i] + dur[i] + tail[i]).fold(0.0, f64::max);
    let ranks =
        problem.by_rank.iter().map(|tasks| jackson_of(tasks.iter().copied(), &head, &dur, &tail));
    // A hair below, so that rounding of sums in another order never lifts the bound above a makespan.
    ranks.fold(path, f64::max) * (1.0 - 1e-12)
}

/// The shortest duration, the head and the tail of every task.
pub(crate) fn heads_and_tails(problem: &Problem) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let dur = shortest(problem);
    let mut head = problem.heads(&dur);
    let mut tail = problem.tails(&dur);
    sharpen(problem, &dur, &mut head, &mut tail);
    (dur, head, tail)
}

/// The shortest duration of every task over the candidates of its pair.
fn shortest(problem: &Problem) -> Vec<f64> {
    let mut dur = problem.costs(&problem.fastest()).dur;
    for (pair, strands) in problem.pairs.iter().zip(&problem.strands) {
        let least = |of: fn(&crate::problem::Strand) -> f64| {
            strands.iter().map(of).fold(f64::INFINITY, f64::min)
        };
        dur[pair.forward.index()] = least(|s| s.forward_s);
        if let Some(b) = pair.backward {
            dur[b.index()] = least(|s| s.backward_s);
        }
    }
    dur
}

/// Raises heads by the load of a task's ancestors on each rank, and tails by that of its descendants, where the graph is
/// small enough to keep ancestor sets.
fn sharpen(problem: &Problem, dur: &[f64], head: &mut [f64], tail: &mut [f64]) {
    const MOST_TASKS: usize = 2500;
    if problem.n > MOST_TASKS {
        return;
    }
    let forward: Vec<u32> = problem.topo.clone();
    one_way(problem, dur, &forward, head, false);
    let backward: Vec<u32> = problem.topo.iter().rev().copied().collect();
    one_way(problem, dur, &backward, tail, true);
}

/// One direction of [`sharpen`]: `at[t]` is the head (or tail) of `t`, `order` a topological order of that direction.
fn one_way(problem: &Problem, dur: &[f64], order: &[u32], at: &mut [f64], reverse: bool) {
    let words = problem.n.div_ceil(64);
    let mut sets = vec![0u64; words * problem.n];
    let mut items: Vec<(f64, f64)> = Vec::new();
    for &t in order {
        let t = t as usize;
        let mut own = vec![0u64; words];
        let edges = if reverse { &problem.succs } else { &problem.preds };
        let mut last_comm = f64::INFINITY;
        for &(p, comm) in edges.of_task(t) {
            let p = p as usize;
            at[t] = at[t].max(at[p] + dur[p] + comm);
            last_comm = last_comm.min(comm);
            for (w, &bits) in own.iter_mut().zip(&sets[p * words..(p + 1) * words]) {
                *w |= bits;
            }
            own[p / 64] |= 1 << (p % 64);
        }
        // Ancestors on one rank run one after the other, each after its own head.
        for tasks in &problem.by_rank {
            items.clear();
            let before =
                tasks.iter().map(|&a| a as usize).filter(|a| own[a / 64] >> (a % 64) & 1 == 1);
            items.extend(before.map(|a| (at[a], dur[a])));
            if items.len() < 2 {
                continue;
            }
            items.sort_by(|a, b| a.0.total_cmp(&b.0));
            let end = items.iter().fold(0.0f64, |end, &(head, dur)| end.max(head) + dur);
            at[t] = at[t].max(end);
        }
        sets[t * words..(t + 1) * words].copy_from_slice(&own);
    }
}

/// Jackson's preemptive schedule of one rank: at any time the released task of longest tail runs.
pub(crate) fn jackson_of(
    tasks: impl Iterator<Item = u32>,
    head: &[f64],
    dur: &[f64],
    tail: &[f64],
) -> f64 {
    let mut by_head: Vec<usize> = tasks.map(|t| t as usize).collect();
    by_head.sort_by(|&a, &b| head[a].total_cmp(&head[b]).then(a.cmp(&b)));
    let mut waiting: std::collections::BinaryHeap<ByTail> = std::collections::BinaryHeap::new();
    let (mut now, mut bound, mut next) = (0.0f64, 0.0f64, 0);
    while next < by_head.len() || !waiting.is_empty() {
        if waiting.is_empty() {
            now = now.max(head[by_head[next]]);
        }
        while let Some(&t) = by_head.get(next).filter(|&&t| head[t] <= now) {
            waiting.push(ByTail { tail: tail[t], left: dur[t] });
            next += 1;
        }
        let Some(mut top) = waiting.pop() else { continue };
        let until = by_head.get(next).map_or(f64::INFINITY, |&t| head[t]);
        if now + top.left <= until {
            now += top.left;
            bound = bound.max(now + top.tail);
        } else {
            top.left -= until - now;
            now = until;
            waiting.push(top);
        }
    }
    bound
}

/// A task that waits for the rank, longest tail first.
struct ByTail {
    tail: f64,
    left: f64,
}

impl PartialEq for ByTail {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByTail {}

impl PartialOrd for ByTail {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByTail {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.tail.total_cmp(&other.tail)
    }
}
