//! Segment reordering (paper section 2, phase 1): sequences of segment groups, which interleaving turns into orders.
//!
//! The segments of one module of one microbatch are a group. A reorderer proposes sequences of groups, most urgent first, and is
//! told what they came to.

mod mcts;
mod paper;

pub(crate) use mcts::Mcts;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Proposes sequences of segment groups and learns from what they come to.
pub(crate) trait Reorder: Send {
    /// Sequences to try next, at least one.
    fn propose(&mut self, rng: &mut ChaCha8Rng) -> Vec<Vec<u32>>;

    /// The makespans of the sequences that were proposed last, in the same order.
    fn learn(&mut self, seconds: &[f64]);
}

/// Sequences in one proposal.
pub(in crate::search) const BATCH: usize = 8;

/// Sequences drawn at random.
pub(crate) struct Random {
    groups: u32,
}

impl Random {
    pub(crate) fn new(groups: usize) -> Self {
        Self { groups: groups as u32 }
    }
}

impl Reorder for Random {
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

/// All sequences in depth-first order, the given one first: the last groups change first.
pub(crate) struct DepthFirst {
    sequence: Vec<u32>,
    done: bool,
}

impl DepthFirst {
    pub(crate) fn new(groups: usize) -> Self {
        Self { sequence: (0..groups as u32).collect(), done: false }
    }

    /// The next sequence in lexicographic order; `false` after the last.
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

/// Local search: the best sequence so far with groups exchanged or moved.
pub(crate) struct Local {
    best: Vec<u32>,
    best_s: f64,
    proposed: Vec<Vec<u32>>,
}

impl Local {
    pub(crate) fn new(groups: usize) -> Self {
        let best = (0..groups as u32).collect();
        Self { best, best_s: f64::INFINITY, proposed: Vec::new() }
    }
}

impl Reorder for Local {
    fn propose(&mut self, rng: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
        let n = self.best.len();
        let neighbour = |i: usize| {
            let mut sequence = self.best.clone();
            // The first proposal holds the sequence itself.
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
        let mut reorder = Local::new(6);
        let wanted = [3u32, 1, 5, 0, 4, 2];
        for _ in 0..300 {
            let cost = |s: &Vec<u32>| s.iter().zip(&wanted).filter(|(a, b)| a != b).count() as f64;
            let costs: Vec<f64> = reorder.propose(&mut rng).iter().map(cost).collect();
            reorder.learn(&costs);
        }
        assert_eq!(reorder.best, wanted);
    }
}
