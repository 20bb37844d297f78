//! The time or memory that the pairs of a rank must spend.
//!
//! A pair holds its bytes at least along the longest path from the start of its forward to the end of its last task. All pairs of a
//! rank fit between the earliest start on the rank and its last end. This span is at least the load of the rank, and at least the
//! byte-seconds of its pairs divided by its memory. So it is at least every weighted mean of the two, where each pair takes the
//! strategy that is best for that weight. The best weight gives the bound: the Lagrangian relaxation of choosing strategies within
//! memory over time.

use super::TaskTimes;
use crate::problem::{Problem, StrategyCost};

/// Maximum number of tasks for which paths inside pairs are followed.
const MAX_TASKS: usize = 100_000;

/// The bound of one rank; 0 if its memory is not limited.
pub(super) fn bound(
    problem: &Problem,
    rank: usize,
    TaskTimes { dur, head, tail }: &TaskTimes,
) -> f64 {
    let Some(budget) = problem.budget[rank].filter(|&b| b > 0 && problem.n <= MAX_TASKS) else {
        return 0.0;
    };
    let tasks = || problem.by_rank[rank].iter().map(|&t| t as usize);
    let first = tasks().map(|t| head[t]).fold(f64::INFINITY, f64::min);
    let last = tasks().map(|t| tail[t]).fold(f64::INFINITY, f64::min);
    let mut paths = LongestPaths::new(problem);
    // The strategies of every pair.
    let mut options: Vec<Vec<Spending>> = Vec::new();
    for (p, pair) in problem.pairs.iter().enumerate() {
        let forward = pair.forward.index();
        if problem.rank[forward] as usize != rank {
            continue;
        }
        let between = pair.backward.map_or(0.0, |b| paths.between(dur, forward, b.index()));
        let weight = pair.weight.map_or(0.0, |w| dur[w.index()]);
        let until_weight = pair.weight.map_or(0.0, |w| {
            let b = pair.backward.map_or(forward, |b| b.index());
            paths.between(dur, b, w.index())
        });
        let cost = |s: &StrategyCost| {
            let load = s.forward_s + s.backward_s + weight;
            let held = load + between + until_weight;
            Spending { time_s: load, memory_s: s.bytes as f64 / budget as f64 * held }
        };
        options.push(problem.strategies[p].iter().map(cost).collect());
    }
    let span = |share: f64| -> f64 {
        let best = |of: &Vec<Spending>| {
            let mixed = of.iter().map(|s| (1.0 - share) * s.time_s + share * s.memory_s);
            mixed.fold(f64::INFINITY, f64::min)
        };
        options.iter().map(best).sum()
    };
    // The span is concave in the weight.
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..40 {
        let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if span(a) < span(b) { low = a } else { high = b }
    }
    let span = span(0.0).max(span(0.5 * (low + high))).max(span(1.0));
    if options.is_empty() { 0.0 } else { first + span + last }
}

/// The time and memory that a pair spends under one strategy.
struct Spending {
    /// Its load.
    time_s: f64,
    /// The time it holds its bytes, times its share of the memory of the rank.
    memory_s: f64,
}

/// Longest paths between two tasks.
struct LongestPaths<'a> {
    problem: &'a Problem,
    place: Vec<u32>,
    /// The longest path to each reached task; negative infinity for others.
    path: Vec<f64>,
    reached: Vec<u32>,
}

impl<'a> LongestPaths<'a> {
    fn new(problem: &'a Problem) -> Self {
        let mut place = vec![0; problem.n];
        for (i, &t) in problem.topo.iter().enumerate() {
            place[t as usize] = i as u32;
        }
        Self { problem, place, path: vec![f64::NEG_INFINITY; problem.n], reached: Vec::new() }
    }

    /// The longest path from the end of `from` to the start of `to`, one of its descendants.
    fn between(&mut self, dur: &[f64], from: usize, to: usize) -> f64 {
        self.reached.clear();
        for i in self.place[from]..self.place[to] {
            let t = self.problem.topo[i as usize] as usize;
            let end = if t == from { 0.0 } else { self.path[t] + dur[t] };
            if end == f64::NEG_INFINITY {
                continue;
            }
            for &(s, comm) in self.problem.succs.of_task(t) {
                let s = s as usize;
                if self.path[s] == f64::NEG_INFINITY {
                    self.reached.push(s as u32);
                }
                self.path[s] = self.path[s].max(end + comm);
            }
        }
        let longest = self.path[to].max(0.0);
        for &t in &self.reached {
            self.path[t as usize] = f64::NEG_INFINITY;
        }
        longest
    }
}
