//! Tabu search on the order (Nowicki and Smutnicki 1996; Zhang, Li, Guan and Rao 2007 for the mix of N6 and restarts).
//!
//! Every step makes the best move on a critical path that does not undo a recent one, also where the order gets longer.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::moves::{Move, Moves, Rated, allowed};
use super::selection::{Selection, Shift};
use crate::problem::Solution;

/// Slots of the table of forbidden orders.
const SLOTS: usize = 1 << 14;

/// A walk over orders; keep one a thread.
pub(in crate::search) struct Tabu {
    /// Step until which one task may not come before another one again, by both.
    until: Vec<u32>,
    step: u32,
    moves: Moves,
}

/// What a walk may do.
#[derive(Debug, Clone, Copy)]
pub(in crate::search) struct Walk {
    /// Steps in all.
    pub(in crate::search) steps: u32,
    /// Steps without a shorter order after which it ends.
    pub(in crate::search) idle: u32,
}

impl Tabu {
    pub(in crate::search) fn new() -> Self {
        Self { until: vec![0; SLOTS], step: 0, moves: Moves::default() }
    }

    /// Walks from where `selection` is and returns the shortest order on the way, the first included, and the steps made.
    pub(in crate::search) fn walk(
        &mut self,
        selection: &mut Selection<'_>,
        walk: Walk,
        rng: &mut ChaCha8Rng,
        mut ended: impl FnMut() -> bool,
    ) -> (Solution, u32) {
        self.until.fill(0);
        self.step = 0;
        let mut best = selection.solution();
        let mut best_s = best.makespan;
        let mut last = 0;
        while self.step < walk.steps && self.step - last < walk.idle {
            self.step += 1;
            if self.step.is_multiple_of(8) && ended() {
                break;
            }
            if !self.advance(selection, best_s, rng) {
                break;
            }
            let seconds = selection.makespan();
            selection.reprice();
            if seconds < best_s && selection.fits() {
                (best_s, best, last) = (seconds, selection.solution(), self.step);
            }
        }
        (best, self.step)
    }

    /// Moves tasks of one rank at random, as far as dependencies and memory allow.
    pub(in crate::search) fn kick(selection: &mut Selection<'_>, times: u32, rng: &mut ChaCha8Rng) {
        for _ in 0..times {
            let rank = rng.random_range(0..selection.order.len());
            let n = selection.order[rank].len() as u32;
            if n < 2 {
                continue;
            }
            let from = rng.random_range(0..n);
            let to = (from + rng.random_range(0..12)).saturating_sub(6).min(n - 1);
            if let Some(shift) = allowed(selection, Shift { rank: rank as u32, from, to }) {
                selection.shift(shift);
            }
        }
    }

    /// Makes one move; `false` where there is none.
    fn advance(
        &mut self,
        selection: &mut Selection<'_>,
        best_s: f64,
        rng: &mut ChaCha8Rng,
    ) -> bool {
        let mut moves = std::mem::take(&mut self.moves);
        moves.collect(selection, rng);
        let mut made = false;
        while !made && !moves.rated.is_empty() {
            let chosen = self.pick(selection, &moves.rated, best_s, rng);
            made = self.make(selection, moves.rated.swap_remove(chosen).step, rng);
        }
        self.moves = moves;
        made
    }

    /// Makes a move; `false`, with nothing changed, where it would close a cycle.
    fn make(&mut self, selection: &mut Selection<'_>, step: Move, rng: &mut ChaCha8Rng) -> bool {
        let old = step.choices.map(|c| c.map(|(pair, _)| (pair, selection.choice[pair as usize])));
        for (pair, choice) in step.choices.into_iter().flatten() {
            selection.choose(pair as usize, choice);
        }
        let made = step.shift.is_none_or(|shift| self.shift(selection, shift, rng));
        for (pair, choice) in old.into_iter().flatten() {
            if made {
                self.until[choice_slot(pair, choice)] = self.step + 8 + rng.random_range(0..8);
            } else {
                selection.choose(pair as usize, choice);
            }
        }
        made
    }

    fn shift(&mut self, selection: &mut Selection<'_>, shift: Shift, rng: &mut ChaCha8Rng) -> bool {
        let list = &selection.order[shift.rank as usize];
        let (t, end) = (list[shift.from as usize], list[shift.to as usize]);
        let made = selection.shift(shift);
        if made {
            let (first, second) = if shift.from < shift.to { (t, end) } else { (end, t) };
            let tenure = self.tenure(selection, shift, rng);
            self.until[slot(first, second)] = self.step + tenure;
        }
        made
    }

    fn tenure(&self, selection: &Selection<'_>, shift: Shift, rng: &mut ChaCha8Rng) -> u32 {
        let base = 8 + (selection.order[shift.rank as usize].len() as f64).sqrt() as u32;
        base + rng.random_range(0..base)
    }

    /// The best move that is not forbidden, or that would give the best order yet; else any.
    fn pick(
        &self,
        selection: &Selection<'_>,
        rated: &[Rated],
        best_s: f64,
        rng: &mut ChaCha8Rng,
    ) -> usize {
        let mut best: Option<(f64, usize)> = None;
        let mut ties = 0;
        for (i, r) in rated.iter().enumerate() {
            if r.seconds >= best_s && self.forbids(selection, r.step) {
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

    /// Whether a move puts back an order that was reversed lately.
    fn forbids(&self, selection: &Selection<'_>, step: Move) -> bool {
        let tabu = |slot: usize| self.until[slot] >= self.step;
        if step.choices.into_iter().flatten().any(|(pair, choice)| tabu(choice_slot(pair, choice)))
        {
            return true;
        }
        let Some(shift) = step.shift else { return false };
        let list = &selection.order[shift.rank as usize];
        let (from, to) = (shift.from as usize, shift.to as usize);
        let t = list[from];
        if from < to {
            list[from + 1..=to].iter().any(|&x| tabu(slot(x, t)))
        } else {
            list[to..from].iter().any(|&x| tabu(slot(t, x)))
        }
    }
}

/// The slot of the order `first` before `second`. Two orders in one slot only forbid a little more.
#[inline]
fn slot(first: u32, second: u32) -> usize {
    let mixed = (u64::from(first) << 32 | u64::from(second)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 50) as usize
}

/// The slot of a strategy of a pair.
#[inline]
fn choice_slot(pair: u32, choice: u16) -> usize {
    slot(pair, u32::MAX - u32::from(choice))
}
