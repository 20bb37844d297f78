//! Priorities of segment groups (paper section 2, phase 1): all segments of one module for one microbatch share a priority.

use std::sync::Arc;

use crate::problem::Problem;

/// A sequence of segment groups, most urgent first, and the order of tasks inside a group.
#[derive(Clone)]
pub(super) struct Priorities {
    /// The position of each group in the sequence.
    position: Vec<f64>,
    /// The order inside a group, in `[0, 1)`.
    inside: Arc<[f64]>,
}

impl Priorities {
    /// The sequences of simple rules: by microbatch, by load, and by the longest path to the end.
    pub(super) fn starts(problem: &Problem, tail: &[f64]) -> Vec<Self> {
        let n = problem.n.max(1) as f64;
        let mut topological = vec![0.0; problem.n];
        for (i, &t) in problem.topo.iter().enumerate() {
            topological[t as usize] = i as f64 / n;
        }
        let longest = tail.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let by_tail: Vec<f64> = tail.iter().map(|t| 0.999 * (1.0 - t / longest)).collect();
        let mut microbatch = vec![0.0; problem.groups];
        let mut load = vec![0.0; problem.groups];
        for (t, &tail) in tail.iter().enumerate() {
            let group = problem.group[t] as usize;
            microbatch[group] = f64::from(problem.microbatch[t]);
            load[group] += tail;
        }
        let heavy_first: Vec<f64> = load.iter().map(|l| -l).collect();
        let (topological, by_tail): (Arc<[f64]>, Arc<[f64]>) = (topological.into(), by_tail.into());
        let by = |key: &[f64], inside: &Arc<[f64]>| Self {
            position: sorted_positions(key),
            inside: inside.clone(),
        };
        vec![
            by(&microbatch, &topological),
            by(&microbatch, &by_tail),
            by(&heavy_first, &topological),
            by(&load, &topological),
            Self { position: vec![0.0; problem.groups], inside: by_tail },
        ]
    }

    /// The key of every task, smallest first.
    pub(super) fn keys(&self, problem: &Problem, keys: &mut [f64]) {
        for (t, key) in keys.iter_mut().enumerate() {
            *key = self.position[problem.group[t] as usize] + self.inside[t];
        }
    }
}

/// The position of each value in sorted order; equal values share a position.
fn sorted_positions(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    values.iter().map(|v| sorted.partition_point(|s| s < v) as f64).collect()
}
