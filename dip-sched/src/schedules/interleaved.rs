//! Interleaved 1F1B, Megatron-LM's virtual pipeline (VPP): every rank holds several chunks and takes them in turn.

use dip_core::{Environment, Placement, Plan, Route, Schedule, ScheduleError, TaskGraph};

use super::plan_target_orders;
use super::units::{Units, rank_positions, units};
use crate::problem::{Order, Problem};

/// Interleaved 1F1B over the model chunks of every rank. With one chunk per rank it is 1F1B.
#[derive(Debug, Clone, Copy, Default)]
pub struct Interleaved;

impl Schedule for Interleaved {
    fn name(&self) -> &str {
        "interleaved"
    }

    fn description(&self) -> &str {
        "1F1B over several chunks per rank (virtual pipeline)"
    }

    fn placement(&self) -> Placement {
        Placement::Contiguous { runs_per_rank: 2, route: Route::Loop }
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        plan_target_orders(self.name(), graph, env, |problem| {
            vec![target_order(problem, &|_| true)]
        })
    }
}

/// The target order of every rank over the chunks for which `keeps` holds.
pub(super) fn target_order(problem: &Problem, keeps: &dyn Fn(u32) -> bool) -> Order {
    let positions = rank_positions(problem);
    let ranks = passes(problem, keeps).into_iter().zip(positions);
    ranks.map(|(passes, position)| passes.order(problem.ranks, position)).collect()
}

/// The work of one rank over some of its chunks, in the order of a virtual pipeline.
pub(super) struct Passes {
    /// Number of chunks.
    chunks: usize,
    /// The forward tasks of each chunk and microbatch.
    pub(super) forwards: Vec<Vec<u32>>,
    /// The backward and weight tasks of each chunk and microbatch.
    pub(super) backwards: Vec<Vec<u32>>,
}

impl Passes {
    /// Warm-up, steady alternation, cool-down; `position` counts the ranks before this one.
    fn order(&self, ranks: usize, position: usize) -> Vec<u32> {
        let later_ranks = ranks - 1 - position;
        // Megatron-LM: two forwards for each later rank, and a whole round of every chunk but the last.
        let warm_up = match self.chunks {
            0 | 1 => later_ranks + 1,
            chunks => 2 * later_ranks + (chunks - 1) * ranks + 1,
        };
        let warm_up = warm_up.min(self.forwards.len());
        let mut list: Vec<u32> = self.forwards[..warm_up].iter().flatten().copied().collect();
        for (i, backward) in self.backwards.iter().enumerate() {
            list.extend(backward);
            if let Some(forward) = self.forwards.get(i + warm_up) {
                list.extend(forward);
            }
        }
        list
    }
}

/// The passes of every rank over the chunks for which `keeps` holds.
pub(super) fn passes(problem: &Problem, keeps: &dyn Fn(u32) -> bool) -> Vec<Passes> {
    let kept = |&t: &u32| keeps(problem.chunk[t as usize]);
    let of_rank = |u: &Units| {
        let chunks = (0..u.forwards.len()).filter(|&c| u.forwards[c].iter().flatten().any(kept));
        let chunks: Vec<usize> = chunks.collect();
        let filtered = |unit: &[u32]| unit.iter().copied().filter(kept).collect::<Vec<_>>();
        let forwards = in_turn(u.microbatches, problem.ranks, chunks.iter().copied());
        let backwards = in_turn(u.microbatches, problem.ranks, chunks.iter().rev().copied());
        let back = |(c, k): (usize, usize)| {
            let mut unit = filtered(&u.backwards[c][k]);
            unit.extend(filtered(&u.weights[c][k]));
            unit
        };
        Passes {
            chunks: chunks.len(),
            forwards: forwards.into_iter().map(|(c, k)| filtered(&u.forwards[c][k])).collect(),
            backwards: backwards.into_iter().map(back).collect(),
        }
    };
    units(problem, true).iter().map(of_rank).collect()
}

/// Pairs (chunk, microbatch): groups of as many microbatches as ranks, each group through all chunks.
fn in_turn(
    microbatches: usize,
    ranks: usize,
    chunks: impl Iterator<Item = usize> + Clone,
) -> Vec<(usize, usize)> {
    let groups = (0..microbatches).step_by(ranks);
    groups
        .flat_map(|first| {
            let last = (first + ranks).min(microbatches);
            chunks.clone().flat_map(move |c| (first..last).map(move |k| (c, k)))
        })
        .collect()
}
