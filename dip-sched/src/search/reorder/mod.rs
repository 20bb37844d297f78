//! Segment reordering (paper section 2, phase 1).
//!
//! A segment group is all segments of one module for one microbatch. A reorderer proposes sequences of groups, most urgent first,
//! and learns their makespans.

mod mcts;
mod paper;

pub(crate) use mcts::Mcts;
pub(super) use paper::{PaperSample, run};

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Proposes sequences of segment groups and learns from their makespans.
pub(crate) trait Reorder: Send {
    /// The sequences to try next, at least one.
    fn propose(&mut self, rng: &mut ChaCha8Rng) -> Vec<Vec<u32>>;

    /// Receives the makespans of the last proposal, in its order.
    fn learn(&mut self, seconds: &[f64]);
}

/// Sequences of one proposal.
const BATCH: usize = 8;

/// Random sequences.
pub(crate) struct RandomOrder {
    groups: u32,
}

impl RandomOrder {
    pub(crate) fn new(groups: usize) -> Self {
        Self { groups: groups as u32 }
    }
}

impl Reorder for RandomOrder {
    fn propose(&mut self, rng: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
        let draw = |_| {
            let mut sequence: Vec<u32> = (0..self.groups).collect();
            sequence.shuffle(rng);
            sequence
        };
        (0..BATCH).map(draw).collect()
    }

    fn learn(&mut self, _seconds: &[f64]) {}
}

/// All sequences in lexicographic order, which is the depth-first order of their tree.
pub(crate) struct DepthFirst {
    sequence: Vec<u32>,
    done: bool,
}

impl DepthFirst {
    pub(crate) fn new(groups: usize) -> Self {
        Self { sequence: (0..groups as u32).collect(), done: false }
    }

    /// Steps to the next sequence. Returns false after the last one.
    fn advance(&mut self) -> bool {
        let s = &mut self.sequence;
        let Some(i) = (1..s.len()).rev().find(|&i| s[i - 1] < s[i]) else { return false };
        let larger = (i..s.len()).rev().find(|&j| s[j] > s[i - 1]).unwrap_or(i);
        s.swap(i - 1, larger);
        s[i..].reverse();
        true
    }
}

impl Reorder for DepthFirst {
    fn propose(&mut self, _rng: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
        let mut batch = Vec::new();
        while batch.is_empty() || (batch.len() < BATCH && !self.done) {
            batch.push(self.sequence.clone());
            self.done = !self.advance();
        }
        batch
    }

    fn learn(&mut self, _seconds: &[f64]) {}
}

/// Local search: exchanges or moves groups of the best sequence so far.
pub(crate) struct LocalSearch {
    best: Vec<u32>,
    best_s: f64,
    proposed: Vec<Vec<u32>>,
}

impl LocalSearch {
    pub(crate) fn new(groups: usize) -> Self {
        let best = (0..groups as u32).collect();
        Self { best, best_s: f64::INFINITY, proposed: Vec::new() }
    }
}

impl Reorder for LocalSearch {
    fn propose(&mut self, rng: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
        let n = self.best.len();
        let neighbour = |i: usize| {
            let mut sequence = self.best.clone();
            // The first sequence is unchanged.
            for _ in 0..if i == 0 || n < 2 { 0 } else { rng.random_range(1..4) } {
                let (a, b) = (rng.random_range(0..n), rng.random_range(0..n));
                if rng.random_bool(0.5) {
                    sequence.swap(a, b);
                } else {
                    let group = sequence.remove(a);
                    sequence.insert(b, group);
                }
            }
            sequence
        };
        self.proposed = (0..BATCH).map(neighbour).collect();
        self.proposed.clone()
    }

    fn learn(&mut self, seconds: &[f64]) {
        for (sequence, &seconds) in self.proposed.drain(..).zip(seconds) {
            if seconds <= self.best_s {
                (self.best, self.best_s) = (sequence, seconds);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn depth_first_sees_every_sequence_once() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut reorder = DepthFirst::new(4);
        let mut all: Vec<Vec<u32>> = (0..3).flat_map(|_| reorder.propose(&mut rng)).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 24);
    }

    #[test]
    fn local_search_sorts_when_order_is_rewarded() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut reorder = LocalSearch::new(6);
        let target = [3u32, 1, 5, 0, 4, 2];
        for _ in 0..300 {
            let cost = |s: &Vec<u32>| s.iter().zip(&target).filter(|(a, b)| a != b).count() as f64;
            let costs: Vec<f64> = reorder.propose(&mut rng).iter().map(cost).collect();
            reorder.learn(&costs);
        }
        assert_eq!(reorder.best, target);
    }
}
