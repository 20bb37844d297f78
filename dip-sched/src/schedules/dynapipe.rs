//! DynaPipe's order: a cyclic schedule without waiting inside a cycle, and a search over the order in which microbatches enter
//! (Jiang and others, EuroSys 2024, sections 4 and 5).

use dip_core::{Environment, Placement, Plan, Schedule, ScheduleError, TaskGraph};

use super::plan_target_orders;
use super::units::{Units, rank_positions, units};
use crate::problem::{Order, Problem, evaluate};

/// Clusters of microbatches of similar time. DynaPipe uses three or four.
const CLUSTERS: usize = 4;
/// Cycles between a task and the task that it feeds.
const STOCKS: [usize; 2] = [1, 2];
/// The best orders that are realised within memory.
const REALISED: usize = 3;

/// In every cycle a rank runs at most one forward and one backward. Their inputs come from earlier cycles, so that no rank waits for a
/// task of the same cycle. One microbatch enters in each cycle. Microbatches are clustered by time, and the clusters enter in the
/// fastest of all permutations.
#[derive(Debug, Clone, Copy, Default)]
pub struct DynaPipe;

impl Schedule for DynaPipe {
    fn name(&self) -> &str {
        "dynapipe"
    }

    fn description(&self) -> &str {
        "DynaPipe's cyclic order, with microbatches in the best of its orders of entry"
    }

    fn placement(&self) -> Placement {
        super::OneFOneB.placement()
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        plan_target_orders(self.name(), graph, env, target_orders)
    }
}

/// The fastest cyclic orders without regard to memory, the fastest first.
fn target_orders(problem: &Problem) -> Vec<Order> {
    let (units, positions) = (units(problem, false), rank_positions(problem));
    let dur = problem.costs(&problem.fastest()).dur;
    let mut found: Vec<(f64, Order)> = Vec::new();
    for entry in entries(problem, &dur) {
        for stock in STOCKS {
            // Of equal orders, the one with backwards first holds less.
            for forward_first in [false, true] {
                let cycle = Cycle { entry: &entry, stock, forward_first };
                let order = cycle.order(&units, &positions);
                let makespan = evaluate::makespan(problem, &dur, &order).unwrap_or(f64::INFINITY);
                let at = found.partition_point(|(other, _)| *other <= makespan);
                found.insert(at, (makespan, order));
                found.truncate(REALISED);
            }
        }
    }
    found.into_iter().map(|(_, order)| order).collect()
}

/// The orders in which microbatches may enter: clusters in all permutations.
fn entries(problem: &Problem, dur: &[f64]) -> Vec<Vec<usize>> {
    let mut load = vec![0.0; problem.microbatches()];
    for (t, dur) in dur.iter().enumerate() {
        load[problem.microbatch[t] as usize] += dur;
    }
    let mut by_load: Vec<usize> = (0..load.len()).collect();
    by_load.sort_by(|&a, &b| load[a].total_cmp(&load[b]));
    let size = by_load.len().div_ceil(CLUSTERS).max(1);
    let clusters: Vec<&[usize]> = by_load.chunks(size).collect();
    let numbers: Vec<usize> = (0..clusters.len()).collect();
    let entered = |order: Vec<usize>| order.iter().flat_map(|&c| clusters[c].to_vec()).collect();
    permutations(&numbers).into_iter().map(entered).collect()
}

/// All orders of `items`.
fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.len() < 2 {
        return vec![items.to_vec()];
    }
    let with_first = |i: usize| {
        let mut rest = items.to_vec();
        let first = rest.remove(i);
        permutations(&rest).into_iter().map(move |p| [vec![first], p].concat())
    };
    (0..items.len()).flat_map(with_first).collect()
}

/// A cyclic schedule.
struct Cycle<'a> {
    /// The microbatches in the order in which they enter.
    entry: &'a [usize],
    stock: usize,
    forward_first: bool,
}

impl Cycle<'_> {
    /// The order of every rank.
    fn order(&self, units: &[Units], positions: &[usize]) -> Order {
        let ranks = units.iter().zip(positions);
        ranks.map(|(units, &position)| self.rank_order(units, position, positions.len())).collect()
    }

    /// On the last rank a backward runs in the cycle after its forward. Weight tasks follow their backward.
    fn rank_order(&self, units: &Units, position: usize, ranks: usize) -> Vec<u32> {
        let mut cycles: Vec<(usize, bool, &[u32])> = Vec::new();
        for (i, &m) in self.entry.iter().enumerate() {
            let forward = i + self.stock * position;
            let backward = i + self.stock * (ranks - 1) + 1 + self.stock * (ranks - 1 - position);
            for chunk in &units.forwards {
                cycles.push((forward, !self.forward_first, &chunk[m]));
            }
            for chunk in units.backwards.iter().chain(&units.weights) {
                cycles.push((backward, self.forward_first, &chunk[m]));
            }
        }
        cycles.sort_by_key(|&(cycle, second, _)| (cycle, second));
        cycles.into_iter().flat_map(|(_, _, tasks)| tasks).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_enter_in_every_order() {
        let mut all = permutations(&[0, 1, 2, 3]);
        assert_eq!(all.len(), 24);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 24);
    }
}
