//! A wave: two virtual stages on every rank, which microbatches pass from the first rank to the last and back.

use std::collections::BTreeMap;

use dip_core::TaskKind;

use super::step::{Step, index};
use crate::problem::{Order, Problem};
use crate::schedules::units::depths;

/// The tasks of a wave, by step.
pub(super) struct Wave {
    /// The rank at each position.
    ranks: Vec<usize>,
    /// `tasks[position][visit][kind][microbatch]`.
    tasks: Vec<[[Vec<Vec<u32>>; 3]; 2]>,
}

/// The chunks of one rank that a microbatch passes one after another.
struct Stay {
    rank: usize,
    /// Each chunk with the seconds of its forwards.
    chunks: Vec<(u32, f64)>,
}

impl Wave {
    /// The wave of a graph.
    ///
    /// # Errors
    /// The way of the microbatches through the ranks, if it is not a wave.
    pub(super) fn new(problem: &Problem) -> Result<Self, String> {
        let stays = stays(problem);
        let ranks: Vec<usize> = stays.iter().map(|stay| stay.rank).collect();
        let (last, mirrored) = (problem.ranks - 1, ranks.iter().eq(ranks.iter().rev()));
        if ranks.len() != 2 * last + 1 || !mirrored || stays[last].chunks.len() < 2 {
            let way: Vec<String> = ranks.iter().take(24).map(ToString::to_string).collect();
            return Err(format!(
                "its graph must have two stages on every rank, from the first rank to the last and back, but microbatches pass \
                 the ranks {}",
                way.join(", ")
            ));
        }
        let mut visit_of: BTreeMap<(usize, u32), usize> = BTreeMap::new();
        for (i, stay) in stays.iter().enumerate() {
            let down = if i == last { first_half(&stay.chunks) } else { stay.chunks.len() };
            for (at, &(chunk, _)) in stay.chunks.iter().enumerate() {
                let visit = usize::from(i > last || at >= down);
                visit_of.insert((stay.rank, chunk), visit);
            }
        }
        let microbatches = problem.microbatches();
        let kinds = || std::array::from_fn(|_| vec![Vec::new(); microbatches]);
        let mut tasks: Vec<_> = (0..problem.ranks).map(|_| [kinds(), kinds()]).collect();
        for (position, &rank) in ranks[..=last].iter().enumerate() {
            for &t in &problem.by_rank[rank] {
                let i = t as usize;
                let visit = visit_of[&(rank, problem.chunk[i])];
                let kind = index(problem.kind[i]);
                tasks[position][visit][kind][problem.microbatch[i] as usize].push(t);
            }
        }
        Ok(Self { ranks: ranks[..=last].to_vec(), tasks })
    }

    /// The tasks of these steps, which are given by position.
    pub(super) fn order(&self, problem: &Problem, steps: &[Vec<Step>]) -> Order {
        let mut order = vec![Vec::new(); problem.ranks];
        for ((&rank, tasks), steps) in self.ranks.iter().zip(&self.tasks).zip(steps) {
            let of = |step: &Step| &tasks[step.visit][index(step.kind)][step.microbatch];
            order[rank] = steps.iter().flat_map(of).copied().collect();
        }
        order
    }
}

/// The chunks in the order in which a microbatch that uses all modules passes them, grouped by rank.
fn stays(problem: &Problem) -> Vec<Stay> {
    let depth = depths(problem);
    let mut cells: BTreeMap<(usize, u32), (u32, f64)> = BTreeMap::new();
    let costs = problem.costs(&problem.fastest());
    for t in (0..problem.n).filter(|&t| problem.kind[t] == TaskKind::Forward) {
        let cell = cells.entry((problem.rank[t] as usize, problem.chunk[t])).or_default();
        cell.0 = cell.0.max(depth[t]);
        cell.1 += costs.dur[t];
    }
    let mut cells: Vec<_> = cells.into_iter().map(|(at, (depth, s))| (depth, at, s)).collect();
    cells.sort_by_key(|&(depth, at, _)| (depth, at));
    let mut stays: Vec<Stay> = Vec::new();
    for (_, (rank, chunk), seconds) in cells {
        match stays.last_mut().filter(|stay| stay.rank == rank) {
            Some(stay) => stay.chunks.push((chunk, seconds)),
            None => stays.push(Stay { rank, chunks: vec![(chunk, seconds)] }),
        }
    }
    stays
}

/// How many chunks of the last rank belong to the way down: as many as make both ways about equally long.
fn first_half(chunks: &[(u32, f64)]) -> usize {
    let load = |part: &[(u32, f64)]| part.iter().map(|c| c.1).sum::<f64>();
    let uneven = |at: &usize| (load(&chunks[..*at]) - load(&chunks[*at..])).abs();
    let halves = (1..chunks.len()).min_by(|a, b| uneven(a).total_cmp(&uneven(b)));
    halves.unwrap_or(1)
}
