//! What the pairs of a rank must spend in time or in memory.
//!
//! A pair holds its bytes at least from the start of its forward to the end of its last task along the longest way between
//! them. All this happens between the earliest start on the rank and the end, less the shortest way from it. So that span is
//! at least the load of the rank, and at least the byte-seconds of its pairs over its memory; hence at least every weighted
//! mean of the two, for which each pair may take the strategy that suits it best. The best weight gives the bound: it is the
//! Lagrangian relaxation of choosing strategies within memory over time.

use crate::problem::Problem;

/// Tasks up to which the ways inside pairs are followed.
const MOST_TASKS: usize = 100_000;

/// The bound of one rank; 0 where its memory is not limited.
pub(super) fn bound(
    problem: &Problem,
    rank: usize,
    (dur, head, tail): (&[f64], &[f64], &[f64]),
) -> f64 {
    let Some(budget) = problem.budget[rank].filter(|&b| b > 0 && problem.n <= MOST_TASKS) else {
        return 0.0;
    };
    let tasks = || problem.by_rank[rank].iter().map(|&t| t as usize);
    let first = tasks().map(|t| head[t]).fold(f64::INFINITY, f64::min);
    let last = tasks().map(|t| tail[t]).fold(f64::INFINITY, f64::min);
    // Load and memory-time (in units of the budget) of every strategy of every pair.
    let mut ways = Ways::new(problem);
    let mut options: Vec<Vec<(f64, f64)>> = Vec::new();
    for (p, pair) in problem.pairs.iter().enumerate() {
        let forward = pair.forward.index();
        if problem.rank[forward] as usize != rank {
            continue;
        }
        let between = pair.backward.map_or(0.0, |b| ways.longest(dur, forward, b.index()));
        let weight = pair.weight.map_or(0.0, |w| dur[w.index()]);
        let behind = pair.weight.map_or(0.0, |w| {
            let b = pair.backward.map_or(forward, |b| b.index());
            ways.longest(dur, b, w.index())
        });
        let cost = |s: &crate::problem::Strand| {
            let load = s.forward_s + s.backward_s + weight;
            let held = load + between + behind;
            (load, s.bytes as f64 / budget as f64 * held)
        };
        options.push(problem.strands[p].iter().map(cost).collect());
    }
    let span = |share: f64| -> f64 {
        let best = |of: &Vec<(f64, f64)>| {
            let mixed = of.iter().map(|&(load, held)| (1.0 - share) * load + share * held);
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

/// Longest ways between two tasks.
struct Ways<'a> {
    problem: &'a Problem,
    place: Vec<u32>,
    way: Vec<f64>,
    reached: Vec<u32>,
}

impl<'a> Ways<'a> {
    fn new(problem: &'a Problem) -> Self {
        let mut place = vec![0; problem.n];
        for (i, &t) in problem.topo.iter().enumerate() {
            place[t as usize] = i as u32;
        }
        Self { problem, place, way: vec![f64::NEG_INFINITY; problem.n], reached: Vec::new() }
    }

    /// The longest way from the end of `from` to the start of `to`, one of its descendants.
    fn longest(&mut self, dur: &[f64], from: usize, to: usize) -> f64 {
        self.reached.clear();
        for i in self.place[from]..self.place[to] {
            let t = self.problem.topo[i as usize] as usize;
            let end = if t == from { 0.0 } else { self.way[t] + dur[t] };
            if end == f64::NEG_INFINITY {
                continue;
            }
            for &(s, comm) in self.problem.succs.of_task(t) {
                let s = s as usize;
                if self.way[s] == f64::NEG_INFINITY {
                    self.reached.push(s as u32);
                }
                self.way[s] = self.way[s].max(end + comm);
            }
        }
        let longest = self.way[to].max(0.0);
        for &t in &self.reached {
            self.way[t as usize] = f64::NEG_INFINITY;
        }
        longest
    }
}
