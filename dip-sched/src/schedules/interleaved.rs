//! Interleaved 1F1B, Megatron-LM's virtual pipeline (VPP): every rank holds several chunks and takes them in turn.

use dip_core::{Environment, Placement, Plan, Schedule, ScheduleError, TaskGraph};

use super::plan_wishes;
use super::units::{Units, rank_positions, units};
use crate::problem::Problem;

/// Interleaved 1F1B over the model chunks of every rank; with one chunk a rank it is 1F1B with a longer warm-up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Interleaved;

impl Schedule for Interleaved {
    fn name(&self) -> &str {
        "interleaved"
    }

    fn description(&self) -> &str {
        "1F1B over several chunks a rank (virtual pipeline)"
    }

    fn placement(&self) -> Placement {
        Placement::Contiguous { runs_per_rank: 2 }
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        plan_wishes(self.name(), graph, env, |problem| vec![wish(problem, &|_, _| true)])
    }
}

/// The wish of every rank over the tasks of the chunks that `keeps` (rank, chunk).
pub(super) fn wish(problem: &Problem, keeps: &dyn Fn(usize, u32) -> bool) -> Vec<Vec<u32>> {
    let positions = rank_positions(problem);
    let units = units(problem, true);
    let ranks = units.iter().zip(positions).enumerate();
    ranks.map(|(r, (u, position))| rank_wish(problem, r, u, position, keeps)).collect()
}

fn rank_wish(
    problem: &Problem,
    r: usize,
    u: &Units,
    position: usize,
    keeps: &dyn Fn(usize, u32) -> bool,
) -> Vec<u32> {
    let ranks = problem.ranks;
    let kept = |&t: &u32| keeps(r, problem.chunk[t as usize]);
    let chunks = (0..u.forwards.len()).filter(|&c| u.forwards[c].iter().flatten().any(kept));
    let chunks: Vec<usize> = chunks.collect();
    let forwards = in_turn(u.microbatches, ranks, chunks.iter().copied());
    let backwards = in_turn(u.microbatches, ranks, chunks.iter().rev().copied());
    // Megatron-LM's warm-up: two units a rank behind this one, and a whole round of every chunk but the last.
    let virtual_warm_up = 2 * (ranks - 1 - position) + chunks.len().saturating_sub(1) * ranks;
    let ahead = if chunks.len() < 2 { ranks - position } else { virtual_warm_up + 1 };
    let ahead = ahead.min(forwards.len());
    let mut list: Vec<u32> = Vec::new();
    forwards[..ahead].iter().for_each(|&(c, k)| list.extend(&u.forwards[c][k]));
    for (i, &(c, k)) in backwards.iter().enumerate() {
        list.extend(&u.backwards[c][k]);
        list.extend(&u.weights[c][k]);
        if let Some(&(c, k)) = forwards.get(i + ahead) {
            list.extend(&u.forwards[c][k]);
        }
    }
    list.retain(kept);
    list
}

/// Forwards and backwards of every rank over the chunks that `keeps` (rank, chunk), in the order of a virtual pipeline.
pub(super) fn passes(
    problem: &Problem,
    keeps: &dyn Fn(usize, u32) -> bool,
) -> Vec<[Vec<Vec<u32>>; 2]> {
    let of_rank = |(r, u): (usize, &Units)| {
        let kept = |&t: &u32| keeps(r, problem.chunk[t as usize]);
        let chunks: Vec<usize> =
            (0..u.forwards.len()).filter(|&c| u.forwards[c].iter().flatten().any(&kept)).collect();
        let filtered = |unit: &[u32]| unit.iter().copied().filter(|t| kept(t)).collect::<Vec<_>>();
        let forwards = in_turn(u.microbatches, problem.ranks, chunks.iter().copied());
        let backwards = in_turn(u.microbatches, problem.ranks, chunks.iter().rev().copied());
        let back = |(c, k): (usize, usize)| {
            let mut unit = filtered(&u.backwards[c][k]);
            unit.extend(filtered(&u.weights[c][k]));
            unit
        };
        [
            forwards.into_iter().map(|(c, k)| filtered(&u.forwards[c][k])).collect(),
            backwards.into_iter().map(back).collect(),
        ]
    };
    units(problem, true).iter().enumerate().map(of_rank).collect()
}

/// Units (chunk, microbatch): groups of as many microbatches as ranks, each through all chunks.
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
