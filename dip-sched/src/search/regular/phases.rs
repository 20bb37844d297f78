//! Regular orders: every microbatch passes every chunk at its own phase.
//!
//! The key of a task is the turn of its microbatch plus the phase of its chunk and kind. A few numbers so describe orders of
//! any size, from 1F1B (phases by depth) over GPipe (backwards a whole batch later) to encoder-first ones, and a local search
//! over them finds the regular part of a good order long before single moves could.

use dip_core::TaskKind;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::ordering::{Lanes, Rules};
use crate::problem::Problem;

/// A chunk is short where its forwards take less than this part of the mean over chunks.
const SHORT: f64 = 0.8;

/// Phases of chunks and turns of microbatches, in turns.
#[derive(Clone)]
pub(in crate::search) struct Phases {
    turn: Vec<f64>,
    phase: Vec<f64>,
    pub(in crate::search) rules: Rules,
}

impl Phases {
    /// Phases by the mean start of each chunk and kind on the way of a microbatch that is alone, stretched by `stretch`.
    pub(in crate::search) fn new(problem: &Problem, head: &[f64], stretch: f64) -> Self {
        let microbatches = problem.microbatch.iter().max().map_or(0, |&m| m as usize + 1);
        let load: f64 = (0..problem.n).map(|t| head[t]).fold(0.0, f64::max);
        let mut sum = vec![(0.0, 0.0f64); 3 * problem.chunks];
        for t in 0..problem.n {
            let (total, count) = &mut sum[class(problem, t)];
            *total += head[t] / load.max(f64::MIN_POSITIVE);
            *count += 1.0;
        }
        let phase = sum.iter().map(|(total, count)| stretch * total / count.max(1.0)).collect();
        let turn = (0..microbatches).map(|m| m as f64).collect();
        Self::of(turn, phase)
    }

    /// Phases of each class of chunk and kind, and turns of microbatches.
    pub(in crate::search) fn of(turn: Vec<f64>, phase: Vec<f64>) -> Self {
        Self { turn, phase, rules: Rules { lanes: Lanes::SingleWithWeights, ..Rules::default() } }
    }

    /// Takes microbatches in any order.
    pub(in crate::search) fn shuffle(&mut self, rng: &mut ChaCha8Rng) {
        self.turn.shuffle(rng);
    }

    /// Sends the lightest microbatch through the pipeline before all others, which follow by load, and lets forwards of short
    /// chunks run ahead of the long ones. The last rank so has backwards and weights to work on before the first long forward
    /// keeps it waiting: on `R` ranks that are equally fast, a forward of `p` seconds comes `(R - 1) p` later there.
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

    /// Moves a phase or two, a turn or two, or changes a rule. Returns whether a turn is another one.
    pub(in crate::search) fn perturb(&mut self, rng: &mut ChaCha8Rng) -> bool {
        let mut turned = false;
        for _ in 0..=rng.random_range(0..3) {
            match rng.random_range(0..9) {
                0..4 => {
                    let by = [0.1, 0.5, 2.0, 8.0][rng.random_range(0..4)];
                    let at = rng.random_range(0..self.phase.len());
                    self.phase[at] += rng.random_range(-by..by);
                }
                4 => {
                    let by = [0.5, 2.0, 8.0][rng.random_range(0..3)];
                    let (kind, by) = (rng.random_range(0..3), rng.random_range(-by..by));
                    self.phase.iter_mut().skip(kind).step_by(3).for_each(|phase| *phase += by);
                }
                5 => {
                    let by = rng.random_range(-3.0..3.0);
                    let at = rng.random_range(0..self.turn.len());
                    self.turn[at] += by;
                    turned = true;
                }
                6 => {
                    let a = rng.random_range(0..self.turn.len());
                    let b = rng.random_range(0..self.turn.len());
                    self.turn.swap(a, b);
                    turned = true;
                }
                7 => {
                    let to = rng.random_range(0..self.turn.len()) as f64;
                    let at = rng.random_range(0..self.turn.len());
                    self.insert(at, to);
                    turned = true;
                }
                _ => {
                    let patience = [0.0, 0.25, 0.5, 1.0];
                    let lanes = [
                        Lanes::Single,
                        Lanes::SingleWithWeights,
                        Lanes::SingleWithWeights,
                        Lanes::Alternate,
                        Lanes::BackwardFirst,
                    ];
                    self.rules.patience = patience[rng.random_range(0..4)];
                    self.rules.weight_patience = patience[rng.random_range(0..4)];
                    self.rules.lanes = lanes[rng.random_range(0..lanes.len())];
                }
            }
        }
        turned
    }
}

impl Phases {
    /// Puts a microbatch before the one at place `to`; those between move up.
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

/// The class of a task: its chunk and kind.
pub(in crate::search) fn class(problem: &Problem, t: usize) -> usize {
    let kind = match problem.kind[t] {
        TaskKind::Forward => 0,
        TaskKind::Backward => 1,
        TaskKind::Weight => 2,
    };
    3 * problem.chunk[t] as usize + kind
}
