//! Virtual pipeline stages: what a rank runs of a microbatch before another rank has its turn.
//!
//! A run of layers that crosses from one module into the next is two chunks of the task graph on one rank, but one stage of a
//! virtual pipeline. Counted as two, the ranks would take unequal numbers of stages in turn and wait for each other.

use std::collections::{BTreeMap, BTreeSet};

use dip_core::TaskKind;

use super::chunk_key;
use crate::problem::Problem;

/// Numbers the chunks of rank `r`, given in the order in which forwards pass them. Chunks that hand over on the rank itself
/// get the same number.
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

/// Pairs of chunks of rank `r` of which the second takes what the first makes.
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
