//! The units of work that classical schedules order: the forwards, backwards or weight tasks of one rank, microbatch and chunk.

mod virtual_stages;

use std::collections::BTreeMap;

use dip_core::TaskKind;

use crate::problem::Problem;
use virtual_stages::virtual_stages;

/// The tasks of one rank, by microbatch and chunk.
pub(super) struct Units {
    /// `forwards[chunk][microbatch]`, chunks in the order in which a microbatch passes them.
    pub(super) forwards: Vec<Vec<Vec<u32>>>,
    /// `backwards[chunk][microbatch]`.
    pub(super) backwards: Vec<Vec<Vec<u32>>>,
    /// `weights[chunk][microbatch]`.
    pub(super) weights: Vec<Vec<Vec<u32>>>,
    pub(super) microbatches: usize,
}

/// The units of every rank. With `by_chunk` each chunk of a rank has its own units; otherwise all chunks of a rank count as one.
pub(super) fn units(problem: &Problem, by_chunk: bool) -> Vec<Units> {
    let microbatches = problem.microbatches();
    let depth = depths(problem);
    (0..problem.ranks)
        .map(|r| {
            let chunks = chunks_of(problem, r, by_chunk, &depth);
            let count = chunks.values().map(|&c| c + 1).max().unwrap_or(0);
            let table = || vec![vec![Vec::new(); microbatches]; count];
            let (mut forwards, mut backwards, mut weights) = (table(), table(), table());
            for &t in &problem.by_rank[r] {
                let pair = &problem.pairs[problem.pair[t as usize] as usize];
                let key = chunk_key(problem, pair.forward.index(), by_chunk);
                let unit = match problem.kind[t as usize] {
                    TaskKind::Forward => &mut forwards,
                    TaskKind::Backward => &mut backwards,
                    TaskKind::Weight => &mut weights,
                };
                unit[chunks[&key]][problem.microbatch[t as usize] as usize].push(t);
            }
            Units { forwards, backwards, weights, microbatches }
        })
        .collect()
}

/// The position of each rank in the order in which forwards pass the ranks.
pub(super) fn rank_positions(problem: &Problem) -> Vec<usize> {
    let depth = depths(problem);
    let mut first: Vec<(u32, usize)> = (0..problem.ranks)
        .map(|r| {
            let chunks = chunk_depths(problem, r, true, &depth);
            (chunks.into_values().min().unwrap_or(u32::MAX), r)
        })
        .collect();
    first.sort_unstable();
    let mut position = vec![0; problem.ranks];
    for (i, &(_, r)) in first.iter().enumerate() {
        position[r] = i;
    }
    position
}

/// The number of edges on the longest path to each task.
pub(super) fn depths(problem: &Problem) -> Vec<u32> {
    let mut depth = vec![0u32; problem.n];
    for &t in &problem.topo {
        for &(p, _) in problem.preds.of_task(t as usize) {
            depth[t as usize] = depth[t as usize].max(depth[p as usize] + 1);
        }
    }
    depth
}

/// The number of a forward's chunk; 0 if all chunks count as one.
fn chunk_key(problem: &Problem, forward: usize, by_chunk: bool) -> u32 {
    if by_chunk { problem.chunk[forward] } else { 0 }
}

/// Numbers the chunks of one rank in the order in which forwards pass them.
fn chunks_of(problem: &Problem, r: usize, by_chunk: bool, depth: &[u32]) -> BTreeMap<u32, usize> {
    let first = chunk_depths(problem, r, by_chunk, depth);
    let mut chunks: Vec<(u32, u32)> = first.into_iter().map(|(key, depth)| (depth, key)).collect();
    chunks.sort_unstable();
    virtual_stages(problem, r, chunks.into_iter().map(|(_, key)| key), by_chunk)
}

/// The depth of each chunk of one rank in a microbatch that passes all modules. Other microbatches skip encoders and start deeper.
fn chunk_depths(problem: &Problem, r: usize, by_chunk: bool, depth: &[u32]) -> BTreeMap<u32, u32> {
    let mut deepest: BTreeMap<u32, u32> = BTreeMap::new();
    for &t in &problem.by_rank[r] {
        let t = t as usize;
        if problem.kind[t] == TaskKind::Forward {
            let at = deepest.entry(chunk_key(problem, t, by_chunk)).or_insert(0);
            *at = (*at).max(depth[t]);
        }
    }
    deepest
}
