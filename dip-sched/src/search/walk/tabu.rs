//! Tabu search on the order (Nowicki and Smutnicki 1996; Zhang, Li, Guan and Rao 2007 for the mix of N6 and restarts).
//!
//! Every step makes the best move on a critical path that does not undo a recent one, even if the order gets longer.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::change::{PairChoice, Shift};
use super::disjunctive_graph::DisjunctiveGraph;
use super::moves::{CriticalMoves, Move, RatedMove, allowed};
use crate::problem::Solution;

/// Slots of the tabu table.
const SLOTS: usize = 1 << 14;

/// A walk over orders. Each thread keeps one.
pub(super) struct Tabu {
    /// The last step, by slot, in which an order of two tasks, or a strategy of a pair, is forbidden.
    until: Vec<u32>,
    step: u32,
    moves: CriticalMoves,
}

/// The limits of a walk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk {
    /// Maximum number of steps.
    pub(super) steps: u32,
    /// Steps without a shorter order after which the walk ends.
    pub(super) idle: u32,
}

impl Tabu {
    pub(super) fn new() -> Self {
        Self { until: vec![0; SLOTS], step: 0, moves: CriticalMoves::default() }
    }

    /// Walks from the order of `graph`. Returns the shortest order, the first one included, and the number of steps.
    pub(super) fn walk(
        &mut self,
        graph: &mut DisjunctiveGraph<'_>,
        walk: Walk,
        rng: &mut ChaCha8Rng,
        mut ended: impl FnMut() -> bool,
    ) -> (Solution, u32) {
        self.until.fill(0);
        self.step = 0;
        let mut best = graph.solution();
        let mut best_s = best.makespan;
        let mut last = 0;
        while self.step < walk.steps && self.step - last < walk.idle {
            self.step += 1;
            if self.step.is_multiple_of(8) && ended() {
                break;
            }
            if !self.advance(graph, best_s, rng) {
                break;
            }
            let seconds = graph.makespan();
            graph.reprice();
            if seconds < best_s && graph.fits() {
                (best_s, best, last) = (seconds, graph.solution(), self.step);
            }
        }
        (best, self.step)
    }

    /// Moves random tasks, as far as dependencies and memory allow.
    pub(super) fn kick(graph: &mut DisjunctiveGraph<'_>, times: u32, rng: &mut ChaCha8Rng) {
        for _ in 0..times {
            let rank = rng.random_range(0..graph.order.len());
            let n = graph.order[rank].len() as u32;
            if n < 2 {
                continue;
            }
            let from = rng.random_range(0..n);
            let to = (from + rng.random_range(0..12)).saturating_sub(6).min(n - 1);
            if let Some(shift) = allowed(graph, Shift { rank: rank as u32, from, to }) {
                graph.shift(shift);
            }
        }
    }

    /// Makes one move. Returns false if there is none.
    fn advance(
        &mut self,
        graph: &mut DisjunctiveGraph<'_>,
        best_s: f64,
        rng: &mut ChaCha8Rng,
    ) -> bool {
        let mut moves = std::mem::take(&mut self.moves);
        moves.collect(graph, rng);
        let mut made = false;
        while !made && !moves.rated.is_empty() {
            let chosen = self.pick(graph, &moves.rated, best_s, rng);
            made = self.make(graph, moves.rated.swap_remove(chosen).step, rng);
        }
        self.moves = moves;
        made
    }

    /// Makes a move. Returns false, with nothing changed, if it would close a cycle.
    fn make(&mut self, graph: &mut DisjunctiveGraph<'_>, step: Move, rng: &mut ChaCha8Rng) -> bool {
        let current =
            |new: PairChoice| PairChoice { choice: graph.choice[new.pair as usize], ..new };
        let old = step.choices.map(|new| new.map(current));
        for new in step.choices.into_iter().flatten() {
            graph.choose(new);
        }
        let made = step.shift.is_none_or(|shift| self.shift(graph, shift, rng));
        for old in old.into_iter().flatten() {
            if made {
                self.until[choice_slot(old)] = self.step + 8 + rng.random_range(0..8);
            } else {
                graph.choose(old);
            }
        }
        made
    }

    fn shift(
        &mut self,
        graph: &mut DisjunctiveGraph<'_>,
        shift: Shift,
        rng: &mut ChaCha8Rng,
    ) -> bool {
        let list = &graph.order[shift.rank as usize];
        let (t, end) = (list[shift.from as usize], list[shift.to as usize]);
        let made = graph.shift(shift);
        if made {
            let (first, second) = if shift.from < shift.to { (t, end) } else { (end, t) };
            let tenure = self.tenure(graph, shift, rng);
            self.until[slot(first, second)] = self.step + tenure;
        }
        made
    }

    fn tenure(&self, graph: &DisjunctiveGraph<'_>, shift: Shift, rng: &mut ChaCha8Rng) -> u32 {
        let base = 8 + (graph.order[shift.rank as usize].len() as f64).sqrt() as u32;
        base + rng.random_range(0..base)
    }

    /// The best move that is not forbidden or would give the best order yet; a random move if there is none.
    fn pick(
        &self,
        graph: &DisjunctiveGraph<'_>,
        rated: &[RatedMove],
        best_s: f64,
        rng: &mut ChaCha8Rng,
    ) -> usize {
        let mut best: Option<(f64, usize)> = None;
        let mut ties = 0;
        for (i, r) in rated.iter().enumerate() {
            if r.seconds >= best_s && self.forbids(graph, r.step) {
                continue;
            }
            match best {
                Some((seconds, _)) if r.seconds > seconds => {}
                Some((seconds, _)) if r.seconds == seconds => {
                    ties += 1;
                    if rng.random_range(0..=ties) == 0 {
                        best = Some((seconds, i));
                    }
                }
                _ => (best, ties) = (Some((r.seconds, i)), 0),
            }
        }
        best.map_or_else(|| rng.random_range(0..rated.len()), |b| b.1)
    }

    /// True if a move restores a recently reversed order or a recently dropped strategy.
    fn forbids(&self, graph: &DisjunctiveGraph<'_>, step: Move) -> bool {
        let tabu = |slot: usize| self.until[slot] >= self.step;
        if step.choices.into_iter().flatten().any(|new| tabu(choice_slot(new))) {
            return true;
        }
        let Some(shift) = step.shift else { return false };
        let list = &graph.order[shift.rank as usize];
        let (from, to) = (shift.from as usize, shift.to as usize);
        let t = list[from];
        if from < to {
            list[from + 1..=to].iter().any(|&x| tabu(slot(x, t)))
        } else {
            list[to..from].iter().any(|&x| tabu(slot(t, x)))
        }
    }
}

/// The slot of the order `first` before `second`. Orders that share a slot only forbid a little more.
#[inline]
fn slot(first: u32, second: u32) -> usize {
    let mixed = (u64::from(first) << 32 | u64::from(second)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 50) as usize
}

/// The slot of a strategy of a pair.
#[inline]
fn choice_slot(PairChoice { pair, choice }: PairChoice) -> usize {
    slot(pair, u32::MAX - u32::from(choice))
}
