//! Priorities over segment groups (paper section 2, phase 1): the segments of one module of one microbatch share one.

use crate::problem::Problem;

/// A sequence of segment groups, most urgent first, and what orders the tasks inside a group.
#[derive(Clone)]
pub(in crate::search) struct Priorities {
    /// Rank of each group in the sequence.
    position: Vec<f64>,
    /// Order inside a group, in `[0, 1)`.
    inside: std::sync::Arc<[f64]>,
}

impl Priorities {
    /// Sequences to start from: by microbatch, by load, and by the longest way to the end.
    pub(in crate::search) fn starts(problem: &Problem, tail: &[f64]) -> Vec<Self> {
        let n = problem.n.max(1) as f64;
        let mut topological = vec![0.0; problem.n];
        for (i, &t) in problem.topo.iter().enumerate() {
            topological[t as usize] = i as f64 / n;
        }
        let longest = tail.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let by_tail: Vec<f64> = tail.iter().map(|t| 0.999 * (1.0 - t / longest)).collect();
        let mut microbatch = vec![0.0; problem.groups];
        let mut load = vec![0.0; problem.groups];
        for t in 0..problem.n {
            let group = problem.group[t] as usize;
            microbatch[group] = f64::from(problem.microbatch[t]);
            load[problem.group[t] as usize] += tail[t];
        }
        let heavy_first: Vec<f64> = load.iter().map(|l| -l).collect();
        let (topological, by_tail): (std::sync::Arc<[f64]>, std::sync::Arc<[f64]>) =
            (topological.into(), by_tail.into());
        let of = |key: &[f64], inside: &std::sync::Arc<[f64]>| Self {
            position: ranks(key),
            inside: inside.clone(),
        };
        vec![
            of(&microbatch, &topological),
            of(&microbatch, &by_tail),
            of(&heavy_first, &topological),
            of(&load, &topological),
            Self { position: vec![0.0; problem.groups], inside: by_tail },
        ]
    }

    /// The key of every task, smallest first.
    pub(in crate::search) fn keys(&self, problem: &Problem, keys: &mut [f64]) {
        for (t, key) in keys.iter_mut().enumerate() {
            *key = self.position[problem.group[t] as usize] + self.inside[t];
        }
    }
}

/// The rank of each value among all; equal values have equal ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    values.iter().map(|v| sorted.partition_point(|s| s < v) as f64).collect()
}
