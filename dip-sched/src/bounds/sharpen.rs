//! Heads and tails that know of the load before and after a task.
//!
//! All ancestors of a task on one rank run before it, one after the other, and from each there is a way to the task. So the
//! one-machine bound of these ancestors, delivered by their ways to the task, is a head of the task; tails mirror heads.

use super::{Jackson, Job, Times};
use crate::problem::{Edges, Problem};

/// Ancestors and edges that are looked at in all; beyond, heads and tails stay as they are.
const MOST: usize = 12_000_000;

/// Raises heads by the load of a task's ancestors on each rank, and tails by that of its descendants.
pub(super) fn sharpen(problem: &Problem, times: &mut Times) {
    let Times { dur, head, tail } = times;
    let mut budget = MOST;
    one_way(problem, (&problem.preds, &problem.succs), &problem.topo, dur, head, &mut budget);
    let back: Vec<u32> = problem.topo.iter().rev().copied().collect();
    one_way(problem, (&problem.succs, &problem.preds), &back, dur, tail, &mut budget);
}

/// One direction: `at` is the head (or tail) of every task, `order` a topological order of that direction.
fn one_way(
    problem: &Problem,
    (before, after): (&Edges, &Edges),
    order: &[u32],
    dur: &[f64],
    at: &mut [f64],
    budget: &mut usize,
) {
    let n = problem.n;
    let mut place = vec![0u32; n];
    for (i, &t) in order.iter().enumerate() {
        place[t as usize] = i as u32;
    }
    // Ancestors by their places in the order, ascending.
    let mut ancestors: Vec<Vec<u32>> = vec![Vec::new(); n];
    let mut way = vec![f64::NEG_INFINITY; n];
    let mut by_rank: Vec<Vec<u32>> = vec![Vec::new(); problem.ranks];
    let mut jackson = Jackson::default();
    for &t in order {
        let t = t as usize;
        for &(p, comm) in before.of_task(t) {
            let p = p as usize;
            at[t] = at[t].max(at[p] + dur[p] + comm);
        }
        let looked_at = before.of_task(t).iter().map(|&(p, _)| ancestors[p as usize].len()).sum();
        let Some(left) = budget.checked_sub(looked_at) else { return };
        let own = merged(before.of_task(t), &ancestors, &place);
        let edges = own.iter().map(|&i| after.of_task(order[i as usize] as usize).len()).sum();
        let Some(left) = left.checked_sub(edges) else { return };
        *budget = left;
        // Longest ways from the end of each ancestor to the task.
        way[t] = 0.0;
        by_rank.iter_mut().for_each(Vec::clear);
        for &i in own.iter().rev() {
            let a = order[i as usize] as usize;
            let through = |&(s, comm): &(u32, f64)| {
                let s = s as usize;
                if s == t { comm } else { comm + dur[s] + way[s] }
            };
            way[a] = after.of_task(a).iter().map(through).fold(f64::NEG_INFINITY, f64::max);
            by_rank[problem.rank[a] as usize].push(a as u32);
        }
        for tasks in by_rank.iter().filter(|tasks| tasks.len() > 1) {
            let jobs = tasks.iter().map(|&a| a as usize);
            let jobs = jobs.map(|a| Job { head: at[a], dur: dur[a], tail: way[a] });
            at[t] = at[t].max(jackson.bound(jobs));
        }
        for &i in &own {
            way[order[i as usize] as usize] = f64::NEG_INFINITY;
        }
        way[t] = f64::NEG_INFINITY;
        ancestors[t] = own;
    }
}

/// The predecessors and all of their ancestors, by their places, ascending.
fn merged(before: &[(u32, f64)], ancestors: &[Vec<u32>], place: &[u32]) -> Vec<u32> {
    if let &[(p, _)] = before {
        let mut own = ancestors[p as usize].clone();
        own.push(place[p as usize]);
        return own;
    }
    let most = before.iter().map(|&(p, _)| place[p as usize] as usize + 1).max().unwrap_or(0);
    let mut bits = vec![0u64; most.div_ceil(64)];
    for &(p, _) in before {
        let own = std::iter::once(&place[p as usize]);
        for &i in ancestors[p as usize].iter().chain(own) {
            bits[i as usize / 64] |= 1 << (i % 64);
        }
    }
    let mut own = Vec::new();
    for (at, mut word) in bits.into_iter().enumerate() {
        while word != 0 {
            own.push(at as u32 * 64 + word.trailing_zeros());
            word &= word - 1;
        }
    }
    own
}
