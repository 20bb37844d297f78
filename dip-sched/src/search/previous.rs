//! Warm start from the plan of the previous batch.
//!
//! Batches differ in their loads. The model, the ranks and the memory stay, and they decide how far ahead each chunk runs. So the
//! regular part of a plan carries over: the phase of each chunk, and the turns of light and heavy microbatches.

use std::collections::HashMap;

use dip_core::{Plan, Task, TaskGraph, TaskKind};

use super::Search;
use super::regular::{Phases, class};
use crate::ordering::{Interleaver, RunSettings};
use crate::problem::{Problem, Solution};

/// Rounds of fitting turns and phases to each other.
const FIT_ROUNDS: usize = 8;

/// A chunk and a kind of task.
type Class<'a> = (&'a str, u32, TaskKind);

/// The regular part of the previous plan, carried over to the graph of this batch.
pub(super) struct PreviousPlan {
    phases: Phases,
}

impl PreviousPlan {
    /// `None` if there is no previous plan, or if it lacks a chunk of this graph. `graph` is the graph of the search.
    pub(super) fn new(search: &Search<'_>, graph: &TaskGraph) -> Option<Self> {
        let phases = regular_part(search.env.previous?, graph, search.problem)?;
        Some(Self { phases })
    }

    /// The phases and turns.
    pub(super) fn phases(&self) -> &Phases {
        &self.phases
    }

    /// Runs the phases through dual-queue interleaving at every level of memory.
    pub(super) fn run(&self, search: &mut Search<'_>) {
        let (problem, phases) = (search.problem, &self.phases);
        let (mut interleaver, mut keys) = (Interleaver::new(problem), vec![0.0; problem.n]);
        phases.keys(problem, &mut keys);
        let mut found: Option<Solution> = None;
        for level in &search.levels {
            if search.clock.is_past(0.5 * search.share_of_tournaments()) {
                break;
            }
            let level = level.with_turns(problem, &search.sequences, phases.turns());
            let Some(mut level) = level else { continue };
            let cutoff_s = found.as_ref().map_or(f64::INFINITY, |f| f.makespan);
            let settings = RunSettings { rules: phases.rules, tail: &level.tail, cutoff_s };
            let run = interleaver.run(&level.costs, &mut level.reserve, &keys, settings);
            if let Some(makespan) = run {
                let order = interleaver.order();
                found = Some(Solution { order, choice: level.choice, makespan });
            }
        }
        if let Some(found) = found {
            search.offer(found);
        }
    }
}

/// Turns and phases like those of a plan, for another graph. `None` if the plan lacks a chunk of the graph.
fn regular_part(plan: &Plan, graph: &TaskGraph, problem: &Problem) -> Option<Phases> {
    let Fit { phases, loads_by_turn } = fit(plan)?;
    let mut phase = vec![0.0; 3 * problem.chunks];
    for (t, task) in graph.tasks.iter().enumerate() {
        phase[class(problem, t)] = *phases.get(&class_of(task))?;
    }
    let mut loads = vec![0.0; problem.microbatches()];
    for (t, task) in graph.tasks.iter().enumerate() {
        loads[problem.microbatch[t] as usize] += task.duration_s.0;
    }
    Some(Phases::new(turns_by_load(&loads, &loads_by_turn), phase))
}

fn class_of(task: &Task) -> Class<'_> {
    (&task.module, task.segment.0, task.kind)
}

/// The regular part of a plan.
struct Fit<'a> {
    /// The phase of each class, in turns.
    phases: HashMap<Class<'a>, f64>,
    /// The load of each microbatch in seconds, ordered by turn.
    loads_by_turn: Vec<f64>,
}

/// Fits the start of every task by the turn of its microbatch plus the phase of its class.
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
    // Sums must not depend on the iteration order of a hash table.
    cells.sort_by_key(|&(m, c, _)| (m, c));
    let (mut turn, mut phase) = (vec![0.0; loads.len()], vec![0.0; classes.len()]);
    for _ in 0..FIT_ROUNDS {
        turn = means(loads.len(), cells.iter().map(|&(m, c, s)| (m, s - phase[c])));
        phase = means(classes.len(), cells.iter().map(|&(m, c, s)| (c, s - turn[m])));
    }
    let mut order: Vec<usize> = (0..loads.len()).collect();
    order.sort_by(|&a, &b| turn[a].total_cmp(&turn[b]).then(a.cmp(&b)));
    // Phases absorb the offset, so that turns start at 0.
    let first = means(1, order.iter().enumerate().map(|(i, &m)| (0, turn[m] - i as f64)))[0];
    let phases = classes.into_iter().map(|(class, c)| (class, phase[c] + first)).collect();
    Some(Fit { phases, loads_by_turn: order.into_iter().map(|m| loads[m]).collect() })
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

/// Turns that put light and heavy microbatches where the previous plan had them. `previous` holds the loads of that plan by turn.
fn turns_by_load(loads: &[f64], previous: &[f64]) -> Vec<f64> {
    let sorted = |values: &[f64]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]).then(a.cmp(&b)));
        order
    };
    // For the microbatch at each turn, the number of lighter microbatches.
    let mut lighter = vec![0; previous.len()];
    for (count, turn) in sorted(previous).into_iter().enumerate() {
        lighter[turn] = count;
    }
    let n = loads.len();
    let target: Vec<f64> = (0..n).map(|turn| lighter[turn * previous.len() / n] as f64).collect();
    let mut turns = vec![0.0; n];
    for (turn, microbatch) in sorted(&target).into_iter().zip(sorted(loads)) {
        turns[microbatch] = turn as f64;
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn light_and_heavy_microbatches_keep_their_places() {
        // The previous plan: medium, light, heavy.
        let turns = turns_by_load(&[9.0, 5.0, 1.0], &[2.0, 1.0, 3.0]);
        assert_eq!(turns, [2.0, 0.0, 1.0]);
        let twice = turns_by_load(&[1.0, 5.0, 9.0, 2.0, 6.0, 8.0], &[2.0, 1.0, 3.0]);
        assert_eq!(twice, [2.0, 0.0, 5.0, 3.0, 1.0, 4.0]);
    }
}
