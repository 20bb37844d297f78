//! What is regular in the plan of the batch before: at which phase microbatches passed each chunk, and in which order light and
//! heavy ones came.
//!
//! Batches differ in their loads, but not in the model, the ranks and the memory, which decide how far ahead each chunk runs.

use std::collections::HashMap;

use dip_core::{Plan, Task, TaskGraph, TaskKind};

use super::regular::{Phases, class};
use crate::problem::Problem;

/// Rounds in which turns and phases are fitted to each other.
const ROUNDS: usize = 8;

/// A chunk and a kind of task.
type Class<'a> = (&'a str, u32, TaskKind);

/// Turns and phases for a problem like those of a plan; `None` where the plan knows nothing of some chunk.
pub(in crate::search) fn regular_part(
    plan: &Plan,
    graph: &TaskGraph,
    problem: &Problem,
) -> Option<Phases> {
    let Fit { phases, loads_in_turn } = fit(plan)?;
    let mut phase = vec![0.0; 3 * problem.chunks];
    for (t, task) in graph.tasks.iter().enumerate() {
        phase[class(problem, t)] = *phases.get(&class_of(task))?;
    }
    let mut loads = vec![0.0; problem.microbatch.iter().max().map_or(0, |&m| m as usize + 1)];
    for (t, task) in graph.tasks.iter().enumerate() {
        loads[problem.microbatch[t] as usize] += task.duration_s.0;
    }
    Some(Phases::of(turns_by_load(&loads, &loads_in_turn), phase))
}

fn class_of(task: &Task) -> Class<'_> {
    (&task.module, task.segment.0, task.kind)
}

/// The regular part of a plan.
struct Fit<'a> {
    /// Phases, in turns.
    phases: HashMap<Class<'a>, f64>,
    /// The load of each microbatch, in the order of their turns.
    loads_in_turn: Vec<f64>,
}

/// Fits the start of every task by the turn of its microbatch plus the phase of its chunk and kind.
fn fit(plan: &Plan) -> Option<Fit<'_>> {
    let mut classes: HashMap<Class<'_>, usize> = HashMap::new();
    let mut microbatches: HashMap<u32, usize> = HashMap::new();
    let mut loads: Vec<f64> = Vec::new();
    let mut cells: HashMap<(usize, usize), (f64, f64)> = HashMap::new();
    for (task, start) in plan.graph.tasks.iter().zip(&plan.predicted.start_s) {
        let next = classes.len();
        let c = *classes.entry(class_of(task)).or_insert(next);
        let m = *microbatches.entry(task.microbatch.0).or_insert(loads.len());
        loads.resize(microbatches.len(), 0.0);
        loads[m] += task.duration_s.0;
        let (sum, count) = cells.entry((m, c)).or_default();
        *sum += start.0;
        *count += 1.0;
    }
    let pitch = plan.predicted.makespan_s.0 / loads.len() as f64;
    if !(pitch > 0.0 && pitch.is_finite()) {
        return None;
    }
    let mut cells: Vec<(usize, usize, f64)> =
        cells.into_iter().map(|((m, c), (sum, count))| (m, c, sum / count / pitch)).collect();
    // Sums must not depend on the order of a hash table.
    cells.sort_by_key(|&(m, c, _)| (m, c));
    let (mut turn, mut phase) = (vec![0.0; loads.len()], vec![0.0; classes.len()]);
    for _ in 0..ROUNDS {
        turn = means(loads.len(), cells.iter().map(|&(m, c, s)| (m, s - phase[c])));
        phase = means(classes.len(), cells.iter().map(|&(m, c, s)| (c, s - turn[m])));
    }
    let mut order: Vec<usize> = (0..loads.len()).collect();
    order.sort_by(|&a, &b| turn[a].total_cmp(&turn[b]).then(a.cmp(&b)));
    // Turns are counted from 0 on.
    let first = means(1, order.iter().enumerate().map(|(i, &m)| (0, turn[m] - i as f64)))[0];
    let phases = classes.into_iter().map(|(class, c)| (class, phase[c] + first)).collect();
    Some(Fit { phases, loads_in_turn: order.into_iter().map(|m| loads[m]).collect() })
}

/// The mean of the values of each index.
fn means(count: usize, values: impl Iterator<Item = (usize, f64)>) -> Vec<f64> {
    let mut sums = vec![(0.0, 0.0); count];
    for (i, value) in values {
        sums[i].0 += value;
        sums[i].1 += 1.0;
    }
    sums.into_iter().map(|(sum, count): (f64, f64)| sum / count.max(1.0)).collect()
}

/// Turns of microbatches such that light and heavy ones come where they came before.
fn turns_by_load(loads: &[f64], before: &[f64]) -> Vec<f64> {
    let sorted = |values: &[f64]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]).then(a.cmp(&b)));
        order
    };
    // The place among all, from the lightest to the heaviest, of the microbatch that had each turn.
    let mut weight = vec![0; before.len()];
    for (place, turn) in sorted(before).into_iter().enumerate() {
        weight[turn] = place;
    }
    let n = loads.len();
    let wanted: Vec<f64> = (0..n).map(|turn| weight[turn * before.len() / n] as f64).collect();
    let mut turns = vec![0.0; n];
    for (turn, microbatch) in sorted(&wanted).into_iter().zip(sorted(loads)) {
        turns[microbatch] = turn as f64;
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn light_and_heavy_microbatches_keep_their_places() {
        // Before: medium, light, heavy.
        let turns = turns_by_load(&[9.0, 5.0, 1.0], &[2.0, 1.0, 3.0]);
        assert_eq!(turns, [2.0, 0.0, 1.0]);
        let twice = turns_by_load(&[1.0, 5.0, 9.0, 2.0, 6.0, 8.0], &[2.0, 1.0, 3.0]);
        assert_eq!(twice, [2.0, 0.0, 5.0, 3.0, 1.0, 4.0]);
    }
}
