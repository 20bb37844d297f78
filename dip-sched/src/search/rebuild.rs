//! A large step away from an order: its start times, disturbed, become the keys of dual-queue interleaving.
//!
//! Where memory is tight, whole microbatches have to change places on all ranks at once, which no sequence of single moves
//! gets to. The interleaving makes a complete order of any keys, within memory.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::upgrade::upgrade;
use crate::evaluate;
use crate::finish::Solution;
use crate::interleave::{Interleaver, Lanes, Rules};
use crate::problem::{Choice, Costs, Problem};
use crate::reserve::Reserve;
use crate::sequence::{feasible_sequence, microbatches, sequence_by};

/// How much longer the next order of a walk may be, as a part of the makespan.
const SLACK: [f64; 3] = [1e-9, 0.005, 0.02];

/// Rebuilds orders; keep one a thread.
pub(super) struct Rebuild<'a> {
    problem: &'a Problem,
    interleaver: Interleaver<'a>,
    keys: Vec<f64>,
    microbatches: u32,
    /// Tries after which the witness is made anew.
    tries_of_witness: u32,
}

impl<'a> Rebuild<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        Self {
            problem,
            interleaver: Interleaver::new(problem),
            keys: vec![0.0; problem.n],
            microbatches: microbatches(problem).max(1),
            tries_of_witness: if problem.n < 1000 { 1 } else { 8 },
        }
    }

    /// Walks from order to order with the strategies of `from`, never much longer than before, and returns the best but `from`.
    pub(super) fn rebuild(
        &mut self,
        from: &Solution,
        tries: u32,
        rng: &mut ChaCha8Rng,
    ) -> Option<Solution> {
        let problem = self.problem;
        let choice = self.other_choice(&from.choice, rng);
        let costs = problem.costs(&choice);
        let tail = problem.tails(&costs.dur);
        let mut start = evaluate::starts(problem, &costs.dur, &from.order)?;
        let mut current_s = from.makespan;
        let slack = 1.0 + SLACK[rng.random_range(0..SLACK.len())];
        let mut best: Option<Solution> = None;
        let mut reserve: Option<Reserve> = None;
        for i in 0..tries {
            self.keys.copy_from_slice(&start);
            self.disturb(current_s, rng);
            if i.is_multiple_of(self.tries_of_witness) {
                reserve = self.reserve(&costs).or(reserve);
            }
            let rules = draw_rules(rng);
            let cutoff = if best.is_some() { current_s * slack } else { f64::INFINITY };
            let run = (&rules, &tail[..], cutoff);
            let Some(makespan) = self.interleaver.run(&costs, reserve.as_mut()?, &self.keys, run)
            else {
                continue;
            };
            let order = self.interleaver.order();
            if makespan < current_s * slack {
                start = evaluate::starts(problem, &costs.dur, &order)?;
                current_s = makespan;
            }
            if best.as_ref().is_none_or(|b| makespan < b.makespan) {
                best = Some(Solution { order, choice: choice.clone(), makespan });
            }
        }
        if let Some(best) = &mut best {
            upgrade(problem, best);
        }
        best
    }

    /// Mostly the same strategies; some of one rank, or of all, drawn anew.
    fn other_choice(&self, from: &Choice, rng: &mut ChaCha8Rng) -> Choice {
        let problem = self.problem;
        let mut choice = from.clone();
        if problem.has_choice && rng.random_range(0..3) > 0 {
            let rank = rng.random_range(0..2 * problem.ranks as u32);
            let share = [0.02, 0.1, 0.3][rng.random_range(0..3)];
            for (p, pair) in problem.pairs.iter().enumerate() {
                let here =
                    rank >= problem.ranks as u32 || problem.rank[pair.forward.index()] == rank;
                if here && rng.random_bool(share) {
                    choice[p] = rng.random_range(0..problem.strands[p].len()) as u16;
                }
            }
        }
        choice
    }

    /// Memory levels of a witness that takes microbatches in the order of the keys: where memory is tight, the order of the
    /// witness is the order that comes out.
    fn reserve(&self, costs: &Costs) -> Option<Reserve> {
        let problem = self.problem;
        let mut keys = vec![f64::INFINITY; self.microbatches as usize];
        for t in 0..problem.n {
            let key = &mut keys[problem.microbatch[t] as usize];
            *key = key.min(self.keys[t]);
        }
        let witness = sequence_by(problem, costs, &keys);
        let witness = witness.or_else(|| feasible_sequence(problem, costs).ok())?;
        Some(Reserve::new(problem, costs, &witness))
    }

    /// Moves keys: of a microbatch, of a segment group, of two microbatches against each other, or of all a little.
    fn disturb(&mut self, makespan: f64, rng: &mut ChaCha8Rng) {
        let problem = self.problem;
        let pitch = makespan / f64::from(self.microbatches);
        match rng.random_range(0..4) {
            0 => {
                let (a, b) = (
                    rng.random_range(0..self.microbatches),
                    rng.random_range(0..self.microbatches),
                );
                let by = self.first(b) - self.first(a);
                for t in 0..problem.n {
                    if problem.microbatch[t] == a {
                        self.keys[t] += by;
                    } else if problem.microbatch[t] == b {
                        self.keys[t] -= by;
                    }
                }
            }
            1 => {
                let a = rng.random_range(0..self.microbatches);
                let by = pitch * rng.random_range(-2.0..2.0);
                for t in (0..problem.n).filter(|&t| problem.microbatch[t] == a) {
                    self.keys[t] += by;
                }
            }
            2 => {
                let a = rng.random_range(0..problem.groups as u32);
                let by = pitch * rng.random_range(-2.0..2.0);
                for t in (0..problem.n).filter(|&t| problem.group[t] == a) {
                    self.keys[t] += by;
                }
            }
            _ => {
                let by = pitch * rng.random_range(0.05..0.8);
                self.keys.iter_mut().for_each(|key| *key += rng.random_range(-by..by));
            }
        }
    }

    /// The first key of a microbatch.
    fn first(&self, microbatch: u32) -> f64 {
        let own = (0..self.problem.n).filter(|&t| self.problem.microbatch[t] == microbatch);
        own.map(|t| self.keys[t]).fold(f64::INFINITY, f64::min).min(1e300)
    }
}

/// Rules for one run, of every kind.
fn draw_rules(rng: &mut ChaCha8Rng) -> Rules {
    let lanes = [Lanes::Single, Lanes::SingleWithWeights, Lanes::Alternate, Lanes::BackwardFirst];
    let patience = [0.0, 0.25, 0.5, 1.0];
    Rules {
        lanes: lanes[rng.random_range(0..lanes.len())],
        patience: patience[rng.random_range(0..patience.len())],
        weight_patience: patience[rng.random_range(0..patience.len())],
        ..Rules::default()
    }
}
