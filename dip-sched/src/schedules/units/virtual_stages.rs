//! Virtual pipeline stages: the chunks of a rank that a microbatch passes before it moves to another rank.
//!
//! A run of layers that crosses from one module into the next is two chunks of the task graph on one rank, but one stage of the
//! virtual pipeline. If it counted as two stages, ranks would take unequal numbers of stages in turn and wait for each other.

use std::collections::{BTreeMap, BTreeSet};

use dip_core::TaskKind;

use super::chunk_key;
use crate::problem::Problem;

/// Numbers the chunks of rank `r`, which are given in the order in which forwards pass them. A chunk that feeds another chunk of the
/// same rank shares its number.
pub(super) fn virtual_stages(
    problem: &Problem,
    r: usize,
    chunks: impl Iterator<Item = u32>,
    by_chunk: bool,
) -> BTreeMap<u32, usize> {
    let handed_over = handed_over(problem, r, by_chunk);
    let mut numbers: BTreeMap<u32, usize> = BTreeMap::new();
    let mut count = 0;
    for key in chunks {
        let joined = handed_over.iter().filter(|&&(_, to)| to == key);
        let stage = joined.filter_map(|(from, _)| numbers.get(from)).max().copied();
        numbers.insert(key, stage.unwrap_or(count));
        count += usize::from(stage.is_none());
    }
    numbers
}

/// Pairs of chunks of rank `r` where the first feeds the second.
fn handed_over(problem: &Problem, r: usize, by_chunk: bool) -> BTreeSet<(u32, u32)> {
    let mut pairs = BTreeSet::new();
    let forward = |t: usize| problem.kind[t] == TaskKind::Forward;
    for t in problem.by_rank[r].iter().map(|&t| t as usize).filter(|&t| forward(t)) {
        for p in problem.preds.of_task(t).iter().map(|&(p, _)| p as usize) {
            if forward(p) && problem.rank[p] as usize == r {
                let (from, to) = (chunk_key(problem, p, by_chunk), chunk_key(problem, t, by_chunk));
                if from != to {
                    pairs.insert((from, to));
                }
            }
        }
    }
    pairs
}
