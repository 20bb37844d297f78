//! The timeline of an order over flat arrays; the semantics are those of [`dip_core::Timeline`].

use super::{Problem, TaskCosts};

/// The makespan of an order, or `None` if it deadlocks.
pub(crate) fn makespan(problem: &Problem, dur: &[f64], order: &[Vec<u32>]) -> Option<f64> {
    starts(problem, dur, order)
        .map(|start| start.iter().zip(dur).map(|(s, d)| s + d).fold(0.0, f64::max))
}

/// The start of every task, or `None` if the order deadlocks.
pub(crate) fn starts(problem: &Problem, dur: &[f64], order: &[Vec<u32>]) -> Option<Vec<f64>> {
    let mut waiting = problem.in_degrees();
    let mut start = vec![0.0f64; problem.n];
    let mut next = vec![0usize; problem.ranks];
    let mut free = vec![0.0f64; problem.ranks];
    let mut runnable: Vec<usize> = (0..problem.ranks).collect();
    let mut done = 0;
    while let Some(rank) = runnable.pop() {
        while let Some(&t) = order[rank].get(next[rank]) {
            let t = t as usize;
            if waiting[t] > 0 {
                break;
            }
            start[t] = start[t].max(free[rank]);
            let end = start[t] + dur[t];
            free[rank] = end;
            next[rank] += 1;
            done += 1;
            for &(s, comm) in problem.succs.of_task(t) {
                let s = s as usize;
                start[s] = start[s].max(end + comm);
                waiting[s] -= 1;
                let other = problem.rank[s] as usize;
                if waiting[s] == 0
                    && other != rank
                    && order[other].get(next[other]) == Some(&(s as u32))
                {
                    runnable.push(other);
                }
            }
        }
    }
    (done == problem.n).then_some(start)
}

/// True if the order keeps every rank within its memory.
pub(crate) fn fits(problem: &Problem, costs: &TaskCosts, order: &[Vec<u32>]) -> bool {
    order.iter().enumerate().all(|(r, list)| rank_fits(problem, costs, r, list.iter().copied()))
}

/// True if the order of one rank keeps it within its memory.
pub(crate) fn rank_fits(
    problem: &Problem,
    costs: &TaskCosts,
    rank: usize,
    list: impl Iterator<Item = u32>,
) -> bool {
    let Some(budget) = problem.budget[rank] else { return true };
    let mut live = 0u64;
    for t in list {
        let t = t as usize;
        live = live.saturating_add(costs.acquire[t]);
        if live > budget {
            return false;
        }
        live = live.saturating_sub(costs.release[t]);
    }
    true
}
