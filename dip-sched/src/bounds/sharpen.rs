//! Sharper heads and tails: they count the load before and after a task.
//!
//! All ancestors of a task on one rank run before it, one after another, and a path leads from each to the task. So the one-machine
//! bound of these ancestors, with these paths as their tails, is a head of the task. Tails mirror heads.

use super::{Jackson, MachineJob, TaskTimes};
use crate::problem::{Edges, Problem};

/// Maximum number of ancestors and edges visited in all. After that, heads and tails stay as they are.
const MAX_VISITS: usize = 12_000_000;

/// Raises heads by the load of a task's ancestors on each rank, and tails by that of its descendants.
pub(super) fn sharpen(problem: &Problem, times: &mut TaskTimes) {
    let TaskTimes { dur, head, tail } = times;
    let mut budget = MAX_VISITS;
    let forward =
        Direction { before: &problem.preds, after: &problem.succs, order: problem.topo.clone() };
    forward.sharpen(problem, dur, head, &mut budget);
    let order = problem.topo.iter().rev().copied().collect();
    let backward = Direction { before: &problem.succs, after: &problem.preds, order };
    backward.sharpen(problem, dur, tail, &mut budget);
}

/// The edges of a graph in one direction, with a topological order of that direction.
struct Direction<'a> {
    before: &'a Edges,
    after: &'a Edges,
    order: Vec<u32>,
}

impl Direction<'_> {
    /// Sharpens `at`: the head (or tail) of every task.
    fn sharpen(&self, problem: &Problem, dur: &[f64], at: &mut [f64], budget: &mut usize) {
        let n = problem.n;
        let mut place = vec![0u32; n];
        for (i, &t) in self.order.iter().enumerate() {
            place[t as usize] = i as u32;
        }
        // Ancestors by their places in the order, ascending.
        let mut ancestors: Vec<Vec<u32>> = vec![Vec::new(); n];
        let mut path = vec![f64::NEG_INFINITY; n];
        let mut by_rank: Vec<Vec<u32>> = vec![Vec::new(); problem.ranks];
        let mut jackson = Jackson::default();
        for &t in &self.order {
            let t = t as usize;
            for &(p, comm) in self.before.of_task(t) {
                let p = p as usize;
                at[t] = at[t].max(at[p] + dur[p] + comm);
            }
            let visited =
                self.before.of_task(t).iter().map(|&(p, _)| ancestors[p as usize].len()).sum();
            let Some(left) = budget.checked_sub(visited) else { return };
            let own = merged(self.before.of_task(t), &ancestors, &place);
            let edges = own
                .iter()
                .map(|&i| self.after.of_task(self.order[i as usize] as usize).len())
                .sum();
            let Some(left) = left.checked_sub(edges) else { return };
            *budget = left;
            // The longest path from the end of each ancestor to the task.
            path[t] = 0.0;
            by_rank.iter_mut().for_each(Vec::clear);
            for &i in own.iter().rev() {
                let a = self.order[i as usize] as usize;
                let through = |&(s, comm): &(u32, f64)| {
                    let s = s as usize;
                    if s == t { comm } else { comm + dur[s] + path[s] }
                };
                path[a] =
                    self.after.of_task(a).iter().map(through).fold(f64::NEG_INFINITY, f64::max);
                by_rank[problem.rank[a] as usize].push(a as u32);
            }
            for tasks in by_rank.iter().filter(|tasks| tasks.len() > 1) {
                let jobs = tasks.iter().map(|&a| a as usize);
                let jobs = jobs.map(|a| MachineJob { head: at[a], dur: dur[a], tail: path[a] });
                at[t] = at[t].max(jackson.bound(jobs));
            }
            for &i in &own {
                path[self.order[i as usize] as usize] = f64::NEG_INFINITY;
            }
            path[t] = f64::NEG_INFINITY;
            ancestors[t] = own;
        }
    }
}

/// The predecessors and all of their ancestors, by their places in the order, ascending.
fn merged(before: &[(u32, f64)], ancestors: &[Vec<u32>], place: &[u32]) -> Vec<u32> {
    if let &[(p, _)] = before {
        let mut own = ancestors[p as usize].clone();
        own.push(place[p as usize]);
        return own;
    }
    let end = before.iter().map(|&(p, _)| place[p as usize] as usize + 1).max().unwrap_or(0);
    let mut bits = vec![0u64; end.div_ceil(64)];
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
