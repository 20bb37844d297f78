//! Regular orders: every microbatch passes every chunk at the phase of that chunk.
//!
//! The key of a task is the turn of its microbatch plus the phase of its chunk and kind. So a few numbers describe orders of any
//! size: 1F1B (phases by depth), GPipe (backwards a whole batch later), encoder-first orders. Local search over these numbers
//! finds the regular part of a good order much sooner than single moves do.

use dip_core::TaskKind;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::ordering::{QueueRule, Rules};
use crate::problem::Problem;

/// A chunk is short if its forwards take less than this share of the mean over chunks.
const SHORT: f64 = 0.8;

/// A regular order. Turns and phases have one unit: the distance between consecutive microbatches.
#[derive(Clone)]
pub(in crate::search) struct Phases {
    /// The turn of each microbatch.
    turn: Vec<f64>,
    /// The phase of each class of tasks.
    phase: Vec<f64>,
    pub(in crate::search) rules: Rules,
}

impl Phases {
    /// Phases by depth: `stretch` times the mean start of each class when a microbatch has the pipeline to itself (`head`).
    pub(in crate::search) fn by_depth(problem: &Problem, head: &[f64], stretch: f64) -> Self {
        let microbatches = problem.microbatches();
        let load: f64 = (0..problem.n).map(|t| head[t]).fold(0.0, f64::max);
        let mut sum = vec![(0.0, 0.0f64); 3 * problem.chunks];
        for t in 0..problem.n {
            let (total, count) = &mut sum[class(problem, t)];
            *total += head[t] / load.max(f64::MIN_POSITIVE);
            *count += 1.0;
        }
        let phase = sum.iter().map(|(total, count)| stretch * total / count.max(1.0)).collect();
        let turn = (0..microbatches).map(|m| m as f64).collect();
        Self::new(turn, phase)
    }

    /// An order of these turns and phases, with one queue per rank.
    pub(in crate::search) fn new(turn: Vec<f64>, phase: Vec<f64>) -> Self {
        Self {
            turn,
            phase,
            rules: Rules { queue_rule: QueueRule::SingleWithWeights, ..Rules::default() },
        }
    }

    /// Shuffles the turns of the microbatches.
    pub(in crate::search) fn shuffle(&mut self, rng: &mut ChaCha8Rng) {
        self.turn.shuffle(rng);
    }

    /// Sends the lightest microbatch through the pipeline before all others, which follow by load. Forwards of short chunks run
    /// ahead of long ones. The last rank then has backwards and weights to run before it waits for the first long forward: on `R`
    /// equally fast ranks, a forward of `p` seconds reaches it `(R - 1) p` later than the first rank.
    pub(in crate::search) fn send_lightest_ahead(&mut self, problem: &Problem, dur: &[f64]) {
        let mut load = vec![0.0; self.turn.len()];
        let mut sum = vec![(0.0, 0.0f64); problem.chunks];
        for t in 0..problem.n {
            load[problem.microbatch[t] as usize] += dur[t];
            if problem.kind[t] == TaskKind::Forward {
                let (seconds, count) = &mut sum[problem.chunk[t] as usize];
                *seconds += dur[t];
                *count += 1.0;
            }
        }
        let count = load.len() as f64;
        let mut by_load: Vec<usize> = (0..load.len()).collect();
        by_load.sort_by(|&a, &b| load[a].total_cmp(&load[b]));
        for (i, &m) in by_load.iter().enumerate() {
            self.turn[m] = i as f64;
        }
        if let Some(&lightest) = by_load.first() {
            self.turn[lightest] = -2.0 * count;
        }
        let mean: Vec<f64> = sum.iter().map(|(seconds, count)| seconds / count.max(1.0)).collect();
        let short = SHORT * mean.iter().sum::<f64>() / mean.len() as f64;
        for (chunk, _) in mean.iter().enumerate().filter(|(_, s)| **s < short) {
            self.phase[3 * chunk] -= count;
        }
    }

    /// The key of every task, smallest first.
    pub(in crate::search) fn keys(&self, problem: &Problem, keys: &mut [f64]) {
        let n = problem.n.max(1) as f64;
        for (i, &t) in problem.topo.iter().enumerate() {
            let t = t as usize;
            let turn = self.turn[problem.microbatch[t] as usize];
            keys[t] = turn + self.phase[class(problem, t)] + 1e-3 * i as f64 / n;
        }
    }

    /// The turn of every microbatch.
    pub(in crate::search) fn turns(&self) -> &[f64] {
        &self.turn
    }

    /// Changes up to three phases, turns or rules at random. Returns true if a turn changed.
    pub(in crate::search) fn perturb(&mut self, rng: &mut ChaCha8Rng) -> bool {
        let mut turn_changed = false;
        for _ in 0..=rng.random_range(0..3) {
            match rng.random_range(0..9) {
                // One phase.
                0..4 => {
                    let by = [0.1, 0.5, 2.0, 8.0][rng.random_range(0..4)];
                    let at = rng.random_range(0..self.phase.len());
                    self.phase[at] += rng.random_range(-by..by);
                }
                // The phases of one kind of task.
                4 => {
                    let by = [0.5, 2.0, 8.0][rng.random_range(0..3)];
                    let (kind, by) = (rng.random_range(0..3), rng.random_range(-by..by));
                    self.phase.iter_mut().skip(kind).step_by(3).for_each(|phase| *phase += by);
                }
                // One turn, by a little.
                5 => {
                    let by = rng.random_range(-3.0..3.0);
                    let at = rng.random_range(0..self.turn.len());
                    self.turn[at] += by;
                    turn_changed = true;
                }
                // Two turns exchanged.
                6 => {
                    let a = rng.random_range(0..self.turn.len());
                    let b = rng.random_range(0..self.turn.len());
                    self.turn.swap(a, b);
                    turn_changed = true;
                }
                // One turn moved anywhere.
                7 => {
                    let to = rng.random_range(0..self.turn.len()) as f64;
                    let at = rng.random_range(0..self.turn.len());
                    self.insert(at, to);
                    turn_changed = true;
                }
                // The rules.
                _ => {
                    let patience = [0.0, 0.25, 0.5, 1.0];
                    let queue_rules = [
                        QueueRule::Single,
                        QueueRule::SingleWithWeights,
                        QueueRule::SingleWithWeights,
                        QueueRule::Alternate,
                        QueueRule::BackwardFirst,
                    ];
                    self.rules.patience = patience[rng.random_range(0..4)];
                    self.rules.weight_patience = patience[rng.random_range(0..4)];
                    self.rules.queue_rule = queue_rules[rng.random_range(0..queue_rules.len())];
                }
            }
        }
        turn_changed
    }

    /// Moves a microbatch to turn `to`; the microbatches in between close up.
    fn insert(&mut self, at: usize, to: f64) {
        let from = self.turn[at];
        for turn in &mut self.turn {
            if from < *turn && *turn <= to {
                *turn -= 1.0;
            } else if to <= *turn && *turn < from {
                *turn += 1.0;
            }
        }
        self.turn[at] = to;
    }
}

/// The class of a task: the number of its chunk and kind.
pub(in crate::search) fn class(problem: &Problem, t: usize) -> usize {
    let kind = match problem.kind[t] {
        TaskKind::Forward => 0,
        TaskKind::Backward => 1,
        TaskKind::Weight => 2,
    };
    3 * problem.chunk[t] as usize + kind
}
