//! The mean microbatch of a graph.

use std::collections::BTreeMap;

use crate::problem::{NONE, Problem};
use crate::search::regular::class;

/// The tasks of one rank, chunk and kind, of the mean microbatch.
pub(super) struct Cell {
    pub(super) rank: usize,
    /// The number of its chunk and kind.
    pub(super) class: usize,
    /// Seconds on its rank.
    pub(super) load_s: f64,
    /// Seconds until its first output.
    pub(super) latency_s: f64,
    /// The cells it needs, each with seconds of communication.
    pub(super) before: Vec<(usize, f64)>,
}

/// The cells of the mean microbatch, and the order in which they get their slots.
pub(in crate::search) struct Template {
    pub(super) cells: Vec<Cell>,
    /// The cell of each task.
    pub(super) cell_of: Vec<u32>,
    /// Forwards and backwards in topological order, then weight gradients, which take the slots that are left.
    pub(super) placing: Vec<usize>,
    pub(super) classes: usize,
    pub(super) ranks: usize,
    /// The load of the busiest rank: no steady state repeats sooner.
    pub(super) busiest_s: f64,
    /// Mean latency of a cell: the unit of waits.
    pub(super) unit_s: f64,
}

impl Template {
    /// The mean microbatch under these durations. `None` if its cells depend on each other in a circle.
    pub(in crate::search) fn new(problem: &Problem, dur: &[f64]) -> Option<Self> {
        let classes = 3 * problem.chunks;
        let mut number = vec![NONE; problem.ranks * classes];
        let mut cells: Vec<Cell> = Vec::new();
        let mut tasks: Vec<f64> = Vec::new();
        let mut cell_of = vec![NONE; problem.n];
        for &t in &problem.topo {
            let t = t as usize;
            let (rank, class) = (problem.rank[t] as usize, class(problem, t));
            let number = &mut number[rank * classes + class];
            if *number == NONE {
                *number = cells.len() as u32;
                let before = Vec::new();
                cells.push(Cell { rank, class, load_s: 0.0, latency_s: 0.0, before });
                tasks.push(0.0);
            }
            cell_of[t] = *number;
            cells[*number as usize].load_s += dur[t];
            tasks[*number as usize] += 1.0;
        }
        let microbatches = problem.microbatches().max(1) as f64;
        for (cell, tasks) in cells.iter_mut().zip(tasks) {
            cell.latency_s = cell.load_s / tasks;
            cell.load_s /= microbatches;
        }
        let mut edges: BTreeMap<(u32, u32), f64> = BTreeMap::new();
        for t in 0..problem.n {
            for &(p, comm) in problem.preds.of_task(t) {
                let (p, same) =
                    (p as usize, problem.microbatch[p as usize] == problem.microbatch[t]);
                if same && cell_of[p] != cell_of[t] {
                    let longest = edges.entry((cell_of[p], cell_of[t])).or_insert(comm);
                    *longest = longest.max(comm);
                }
            }
        }
        for ((from, to), comm) in edges {
            cells[to as usize].before.push((from as usize, comm));
        }
        let mut load = vec![0.0f64; problem.ranks];
        cells.iter().for_each(|cell| load[cell.rank] += cell.load_s);
        let busiest_s = load.into_iter().fold(0.0, f64::max);
        let unit_s = cells.iter().map(|c| c.latency_s).sum::<f64>() / cells.len().max(1) as f64;
        let placing = placing(&cells)?;
        let sound = busiest_s > 0.0 && busiest_s.is_finite();
        let ranks = problem.ranks;
        sound.then_some(Self { cells, cell_of, placing, classes, ranks, busiest_s, unit_s })
    }
}

/// A topological order of the cells with all weight gradients at the end. `None` if there is none.
fn placing(cells: &[Cell]) -> Option<Vec<usize>> {
    let mut after = vec![Vec::new(); cells.len()];
    let mut waiting: Vec<usize> = cells.iter().map(|cell| cell.before.len()).collect();
    for (c, cell) in cells.iter().enumerate() {
        cell.before.iter().for_each(|&(b, _)| after[b].push(c));
    }
    let is_weight = |c: usize| cells[c].class % 3 == 2;
    let mut order: Vec<usize> = Vec::with_capacity(cells.len());
    let (mut ready, mut weights): (Vec<usize>, Vec<usize>) =
        (0..cells.len()).filter(|&c| waiting[c] == 0).partition(|&c| !is_weight(c));
    ready.reverse();
    while let Some(c) = ready.pop().or_else(|| weights.pop()) {
        order.push(c);
        for &next in &after[c] {
            waiting[next] -= 1;
            if waiting[next] == 0 {
                if is_weight(next) { weights.insert(0, next) } else { ready.insert(0, next) }
            }
        }
    }
    (order.len() == cells.len()).then_some(order)
}
