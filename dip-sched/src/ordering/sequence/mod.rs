//! A total order that runs all tasks one at a time within memory. It proves that a graph is feasible, and it keeps every schedule
//! free of deadlock (see [`super::reserve`]).
//!
//! Tasks that hold no bytes run as soon as they are ready: that only frees memory and enables other tasks. So the choice is among
//! forwards that hold bytes. Three methods are tried: microbatch by microbatch; on demand of the next task that frees memory; and,
//! on small graphs, a search that remembers the states it failed from.

mod methods;
mod partial;

use dip_core::ScheduleError;

use crate::problem::{Problem, TaskCosts};
use methods::{by_key, on_demand, search};
use partial::{PartialSequence, Stuck};

/// Maximum number of tasks for the depth-first search.
const MAX_SEARCHED_TASKS: usize = 600;

/// Returns a sequence of all tasks that fits in memory.
///
/// # Errors
/// [`ScheduleError::Infeasible`] names the rank that ran out of memory, with the least that any attempt needed.
pub(crate) fn feasible_sequence(
    problem: &Problem,
    costs: &TaskCosts,
) -> Result<Vec<u32>, ScheduleError> {
    if !problem.is_limited() {
        return Ok(problem.topo.clone());
    }
    if let Some(error) = too_large(problem, costs) {
        return Err(error);
    }
    let empty = PartialSequence::new(problem, costs);
    let in_turn: Vec<f64> = problem.microbatch.iter().map(|&m| f64::from(m)).collect();
    let attempts = [by_key(empty.clone(), &in_turn), on_demand(empty.clone())];
    let mut stuck: Option<Stuck> = None;
    for attempt in attempts {
        match attempt {
            Ok(sequence) => return Ok(sequence),
            Err(s) => {
                stuck = Some(stuck.map_or(s, |t| if s.excess() < t.excess() { s } else { t }))
            }
        }
    }
    if problem.n <= MAX_SEARCHED_TASKS
        && let Some(sequence) = search(empty)
    {
        return Ok(sequence);
    }
    let stuck = stuck.unwrap_or_default();
    let fixed = problem.static_bytes[stuck.rank];
    Err(problem.infeasible(stuck.rank, stuck.needed.saturating_add(fixed)))
}

/// A sequence that takes tasks by their keys, smallest first. `None` if it runs out of memory.
pub(crate) fn sequence_by(problem: &Problem, costs: &TaskCosts, keys: &[f64]) -> Option<Vec<u32>> {
    if !problem.is_limited() {
        return Some(problem.topo.clone());
    }
    by_key(PartialSequence::new(problem, costs), keys).ok()
}

/// Sequences that run microbatches one after another.
pub(crate) struct MicrobatchSequences {
    /// The sequence of each microbatch by itself; `None` if microbatches depend on each other or memory is unlimited.
    by_microbatch: Option<Vec<Vec<u32>>>,
}

impl MicrobatchSequences {
    /// Computes the sequence of every microbatch by itself.
    pub(crate) fn new(problem: &Problem, costs: &TaskCosts) -> Self {
        if !problem.is_limited() {
            return Self { by_microbatch: None };
        }
        let of = |t: u32| problem.microbatch[t as usize] as usize;
        let independent = (0..problem.n as u32)
            .all(|t| problem.succs.of_task(t as usize).iter().all(|&(s, _)| of(s) == of(t)));
        let free = PartialSequence::unlimited(problem, costs);
        let keys: Vec<f64> = problem.microbatch.iter().map(|&m| f64::from(m)).collect();
        let Some(sequence) = by_key(free, &keys).ok().filter(|_| independent) else {
            return Self { by_microbatch: None };
        };
        let mut own = vec![Vec::new(); problem.microbatches()];
        for t in sequence {
            own[of(t)].push(t);
        }
        Self { by_microbatch: Some(own) }
    }

    /// The microbatches one after another, the smallest turn first. `None` if that runs out of memory.
    pub(crate) fn in_turn(
        &self,
        problem: &Problem,
        costs: &TaskCosts,
        turn: &[f64],
    ) -> Option<Vec<u32>> {
        if let Some(own) = &self.by_microbatch {
            let mut order: Vec<usize> = (0..own.len()).collect();
            order.sort_by(|&a, &b| turn[a].total_cmp(&turn[b]));
            let sequence: Vec<u32> = order.into_iter().flat_map(|m| &own[m]).copied().collect();
            if fits(problem, costs, &sequence) {
                return Some(sequence);
            }
        }
        let keys: Vec<f64> = problem.microbatch.iter().map(|&m| turn[m as usize]).collect();
        sequence_by(problem, costs, &keys)
    }
}

/// True if a sequence fits in memory.
fn fits(problem: &Problem, costs: &TaskCosts, sequence: &[u32]) -> bool {
    let mut live = vec![0u64; problem.ranks];
    sequence.iter().all(|&t| {
        let rank = problem.rank[t as usize] as usize;
        let held = live[rank].saturating_add(costs.acquire[t as usize]);
        live[rank] = held.saturating_sub(costs.release[t as usize]);
        problem.budget[rank].is_none_or(|budget| held <= budget)
    })
}

/// A sequence that agrees with an order, which must not deadlock. It fits in memory if the order does, because the bytes that a
/// rank holds depend only on the order of its own tasks.
pub(crate) fn sequence_of(problem: &Problem, order: &[Vec<u32>]) -> Vec<u32> {
    let mut waiting = problem.in_degrees();
    let mut next = vec![0usize; problem.ranks];
    let mut sequence = Vec::with_capacity(problem.n);
    let mut runnable: Vec<usize> = (0..problem.ranks).collect();
    while let Some(rank) = runnable.pop() {
        while let Some(&t) = order[rank].get(next[rank]).filter(|&&t| waiting[t as usize] == 0) {
            next[rank] += 1;
            sequence.push(t);
            for &(s, _) in problem.succs.of_task(t as usize) {
                waiting[s as usize] -= 1;
                if waiting[s as usize] == 0 {
                    runnable.push(problem.rank[s as usize] as usize);
                }
            }
        }
    }
    sequence
}

/// The error for the rank whose largest pair exceeds its memory most; no order can help there. `None` if all pairs fit alone.
fn too_large(problem: &Problem, costs: &TaskCosts) -> Option<ScheduleError> {
    let excess = |t: usize| {
        let rank = problem.rank[t] as usize;
        let over = costs.acquire[t].checked_sub(problem.budget[rank]?)?;
        (over > 0).then_some((over, rank, costs.acquire[t]))
    };
    let (_, rank, bytes) = (0..problem.n).filter_map(excess).max_by_key(|e| e.0)?;
    Some(problem.infeasible(rank, bytes.saturating_add(problem.static_bytes[rank])))
}
