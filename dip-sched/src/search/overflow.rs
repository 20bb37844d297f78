//! Walks through orders that do not fit in memory: strategic oscillation.
//!
//! Where memory is tight, the way from one order that fits to a better one often leads over orders that do not. A loose walk may
//! take it: bytes beyond a limit cost seconds, at a price that rises while the order does not fit and falls while it does.

use super::selection::{Selection, Shift};

/// By how much the price rises or falls in a step.
const PACE: f64 = 1.1;

/// What a loose walk pays for memory it does not have.
#[derive(Debug, Clone, Default)]
pub(super) struct Overflow {
    /// Bytes beyond the limit of each rank, summed over its places.
    pub(super) bytes: Vec<u64>,
    /// Seconds for each byte at one place.
    price: f64,
}

impl Overflow {
    fn total(&self) -> u64 {
        self.bytes.iter().fold(0, |sum, &b| sum.saturating_add(b))
    }
}

impl Selection<'_> {
    /// Lets the next moves exceed memory, at a price. [`Selection::load`] ends that.
    pub(super) fn loosen(&mut self) {
        let held: f64 = self.costs.acquire.iter().map(|&b| b as f64).sum();
        let price = self.costs.dur.iter().sum::<f64>() / held.max(1.0);
        self.overflow = Some(Overflow { bytes: vec![0; self.order.len()], price });
    }

    /// Whether the order fits in memory.
    pub(super) fn fits(&self) -> bool {
        self.overflow.as_ref().is_none_or(|o| o.total() == 0)
    }

    /// Adapts the price after a step.
    pub(super) fn reprice(&mut self) {
        let fits = self.fits();
        if let Some(overflow) = &mut self.overflow {
            overflow.price *= if fits { PACE.recip() } else { PACE };
        }
    }

    /// Seconds to pay for the memory that would be missing after a move.
    pub(super) fn toll(&self, shift: Shift) -> f64 {
        let Some(overflow) = &self.overflow else { return 0.0 };
        let rank = shift.rank as usize;
        let (from, to) = (shift.from as usize, shift.to as usize);
        let (low, high) = (from.min(to), from.max(to));
        let list = &self.order[rank][low..=high];
        let kept = if from < to { &list[1..] } else { &list[..high - low] };
        let moved = std::slice::from_ref(&self.order[rank][from]);
        let (first, second) = if from < to { (kept, moved) } else { (moved, kept) };
        let start = self.live[rank][low];
        let now = self.missing(rank, start, list.iter());
        let then = self.missing(rank, start, first.iter().chain(second));
        let total = overflow.total().saturating_sub(now).saturating_add(then);
        total as f64 * overflow.price
    }

    /// Bytes beyond the limit of a rank, summed over tasks that follow each other where `held` are taken.
    fn missing<'t>(&self, rank: usize, held: u64, tasks: impl Iterator<Item = &'t u32>) -> u64 {
        let Some(budget) = self.problem.budget[rank] else { return 0 };
        let mut held = held;
        let mut missing = 0u64;
        for &t in tasks {
            let level = held.saturating_add(self.costs.acquire[t as usize]);
            missing = missing.saturating_add(level.saturating_sub(budget));
            held = level.saturating_sub(self.costs.release[t as usize]);
        }
        missing
    }

    /// Counts the missing bytes of a rank anew.
    pub(super) fn recount(&mut self, rank: usize) {
        if self.overflow.is_some() {
            let missing = self.missing(rank, 0, self.order[rank].iter());
            if let Some(overflow) = &mut self.overflow {
                overflow.bytes[rank] = missing;
            }
        }
    }

    /// The places of a rank at which memory is missing.
    pub(super) fn overfull(&self, rank: usize) -> impl Iterator<Item = usize> {
        let budget = self.problem.budget[rank].unwrap_or(u64::MAX);
        let level = move |(i, &t): (usize, &u32)| {
            self.live[rank][i].saturating_add(self.costs.acquire[t as usize]) > budget
        };
        self.order[rank].iter().enumerate().filter(move |&at| level(at)).map(|(i, _)| i)
    }
}
