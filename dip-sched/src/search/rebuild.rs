//! A large step away from an order: its start times, disturbed, become the keys of dual-queue interleaving.
//!
//! Where memory is tight, whole microbatches have to change places on all ranks at once, which no sequence of single moves
//! gets to. The interleaving makes a complete order of any keys, within memory.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::evaluate;
use crate::finish::Solution;
use crate::interleave::{Interleaver, Lanes, Rules};
use crate::problem::{Costs, Problem};
use crate::reserve::Reserve;
use crate::sequence::{feasible_sequence, microbatches, sequence_by};

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

    /// Another order with the strategies of `from`: the best of so many tries.
    pub(super) fn rebuild(
        &mut self,
        from: &Solution,
        tries: u32,
        rng: &mut ChaCha8Rng,
    ) -> Option<Solution> {
        let problem = self.problem;
        let costs = problem.costs(&from.choice);
        let start = evaluate::starts(problem, &costs.dur, &from.order)?;
        let tail = problem.tails(&costs.dur);
        let mut best: Option<Solution> = None;
        let mut reserve: Option<Reserve> = None;
        for i in 0..tries {
            self.keys.copy_from_slice(&start);
            self.disturb(from.makespan, rng);
            if i.is_multiple_of(self.tries_of_witness) {
                reserve = self.reserve(&costs).or(reserve);
            }
            let reserve = reserve.as_mut()?;
            let lanes =
                [Lanes::Single, Lanes::SingleWithWeights, Lanes::Alternate, Lanes::BackwardFirst];
            let patience = [0.0, 0.25, 0.5, 1.0];
            let rules = Rules {
                lanes: lanes[rng.random_range(0..lanes.len())],
                patience: patience[rng.random_range(0..patience.len())],
                weight_patience: patience[rng.random_range(0..patience.len())],
                ..Rules::default()
            };
            let cutoff = best.as_ref().map_or(f64::INFINITY, |b| b.makespan);
            let run = self.interleaver.run(&costs, reserve, &self.keys, (&rules, &tail, cutoff));
            if let Some(makespan) = run {
                let (order, choice) = (self.interleaver.order(), from.choice.clone());
                best = Some(Solution { order, choice, makespan });
            }
        }
        best
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
