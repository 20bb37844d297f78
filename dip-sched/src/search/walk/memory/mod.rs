//! The memory of an order under change: what each rank holds, and which changes fit.

use std::ops::RangeInclusive;

use super::change::{PairChoice, Shift};
use super::disjunctive_graph::DisjunctiveGraph;
use super::overflow::Overflow;

/// The bytes that a smaller strategy saves, and the places between which it saves them.
struct Saving {
    bytes: u64,
    places: RangeInclusive<usize>,
}

impl DisjunctiveGraph<'_> {
    /// Shortens a move to what memory allows; `None` if the task cannot move.
    pub(super) fn fitting(&self, shift: Shift) -> Option<Shift> {
        let rank = shift.rank as usize;
        if self.overflow.is_some() {
            return Some(shift);
        }
        let Some(budget) = self.problem.budget[rank] else { return Some(shift) };
        let (from, to) = (shift.from as usize, shift.to as usize);
        let (list, live) = (&self.order[rank], &self.live[rank]);
        let t = list[from] as usize;
        let (take, give) = (self.costs.acquire[t], self.costs.release[t]);
        let level = |i: usize| live[i] + self.costs.acquire[list[i] as usize];
        let mut furthest = None;
        if from < to {
            // The task moves later: it takes bytes and gives them back later.
            for i in from + 1..=to {
                if give > take && level(i) + (give - take) > budget {
                    break;
                }
                if live[i + 1].saturating_add(give) <= budget {
                    furthest = Some(i);
                }
            }
        } else {
            for i in (to..from).rev() {
                if take > give && level(i) + (take - give) > budget {
                    break;
                }
                if live[i].saturating_add(take) <= budget {
                    furthest = Some(i);
                }
            }
        }
        furthest.map(|to| Shift { to: to as u32, ..shift })
    }

    /// True if memory allows a new strategy of a pair.
    pub(super) fn fits_choice(&self, new: PairChoice) -> bool {
        self.fits_growth(new, |_, held| held)
    }

    /// True if memory allows a larger strategy of one pair once another pair of its rank takes a smaller one.
    pub(super) fn fits_trade(&self, larger: PairChoice, smaller: PairChoice) -> bool {
        let saving = self.saving(smaller);
        self.fits_growth(larger, |place, held| {
            if saving.places.contains(&place) { held - saving.bytes } else { held }
        })
    }

    /// True if a pair may grow to a new strategy. `held_at` corrects the bytes that its rank holds at each place.
    fn fits_growth(&self, new: PairChoice, held_at: impl Fn(usize, u64) -> u64) -> bool {
        let (now, then) = self.bytes_of(new);
        let (rank, mut places) = self.places_of(new.pair as usize);
        let Some(budget) = self.problem.budget[rank].filter(|_| then > now) else { return true };
        places.all(|i| {
            let held = self.live[rank][i] + self.costs.acquire[self.order[rank][i] as usize];
            held_at(i, held).saturating_add(then - now) <= budget
        })
    }

    /// True if memory allows a forward to move earlier once another pair, or its own pair, takes a smaller strategy.
    pub(super) fn fits_with(&self, shift: Shift, smaller: PairChoice) -> bool {
        let rank = shift.rank as usize;
        let Some(budget) = self.problem.budget[rank] else { return true };
        let (from, to) = (shift.from as usize, shift.to as usize);
        let (list, live) = (&self.order[rank], &self.live[rank]);
        let t = list[from] as usize;
        let saving = self.saving(smaller);
        let own = self.problem.pair[t] == smaller.pair;
        let take = self.costs.acquire[t] - if own { saving.bytes } else { 0 };
        let give = self.costs.release[t].min(take);
        let less = |held: u64, live: bool| if live && !own { held - saving.bytes } else { held };
        let before = less(live[to], saving.places.contains(&to) && *saving.places.start() < to);
        before.saturating_add(take) <= budget
            && (to..from).all(|i| {
                let level = live[i] + self.costs.acquire[list[i] as usize];
                less(level, saving.places.contains(&i)).saturating_add(take - give) <= budget
            })
    }

    /// The bytes of a pair under its current strategy and under a new one.
    fn bytes_of(&self, new: PairChoice) -> (u64, u64) {
        let strategies = &self.problem.strategies[new.pair as usize];
        let now = self.choice[new.pair as usize];
        (strategies[now as usize].bytes, strategies[new.choice as usize].bytes)
    }

    /// The rank of a pair and the places from its forward to its release.
    fn places_of(&self, pair: usize) -> (usize, RangeInclusive<usize>) {
        let p = &self.problem.pairs[pair];
        let place = |t: usize| self.place[t] as usize;
        let rank = self.problem.rank[p.forward.index()] as usize;
        (rank, place(p.forward.index())..=place(p.release().index()))
    }

    fn saving(&self, smaller: PairChoice) -> Saving {
        let (now, then) = self.bytes_of(smaller);
        let (_, places) = self.places_of(smaller.pair as usize);
        Saving { bytes: now.saturating_sub(then), places }
    }

    /// Writes the pairs that a rank holds at a place to `pairs`, the pair of the task at that place included. Keeps the `max_pairs`
    /// latest ones, the latest first.
    pub(super) fn held_at(
        &self,
        rank: usize,
        place: usize,
        max_pairs: usize,
        pairs: &mut Vec<u32>,
    ) {
        pairs.clear();
        for &t in self.order[rank][..=place].iter().rev() {
            let pair = self.problem.pair[t as usize];
            let p = &self.problem.pairs[pair as usize];
            if p.forward.0 == t && self.place[p.release().index()] as usize >= place {
                pairs.push(pair);
                if pairs.len() == max_pairs {
                    return;
                }
            }
        }
    }

    /// Recomputes the bytes that a rank holds before the places `low + 1..=high`.
    pub(super) fn recompute_live(&mut self, rank: usize, low: usize, high: usize) {
        if self.problem.budget[rank].is_none() {
            return;
        }
        let mut held = self.live[rank][low];
        for i in low..high {
            let t = self.order[rank][i] as usize;
            held = held.saturating_add(self.costs.acquire[t]).saturating_sub(self.costs.release[t]);
            self.live[rank][i + 1] = held;
        }
        self.recompute_overflow(rank);
    }

    /// Lets the next moves exceed memory, at a price, until the next [`DisjunctiveGraph::load`].
    pub(super) fn loosen(&mut self) {
        let held: f64 = self.costs.acquire.iter().map(|&b| b as f64).sum();
        let price = self.costs.dur.iter().sum::<f64>() / held.max(1.0);
        self.overflow = Some(Overflow::new(self.order.len(), price));
    }

    /// True if the order fits in memory.
    pub(super) fn fits(&self) -> bool {
        self.overflow.as_ref().is_none_or(|o| o.total() == 0)
    }

    /// Adjusts the price after a step.
    pub(super) fn reprice(&mut self) {
        if let Some(overflow) = &mut self.overflow {
            overflow.reprice();
        }
    }

    /// The price, in seconds, of all excess memory after a move.
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
        let now = self.excess(rank, start, list.iter());
        let then = self.excess(rank, start, first.iter().chain(second));
        overflow.price_of(overflow.total().saturating_sub(now).saturating_add(then))
    }

    /// Bytes beyond the limit of a rank, summed over consecutive tasks that start with `held` bytes taken.
    fn excess<'t>(&self, rank: usize, held: u64, tasks: impl Iterator<Item = &'t u32>) -> u64 {
        let Some(budget) = self.problem.budget[rank] else { return 0 };
        let mut held = held;
        let mut excess = 0u64;
        for &t in tasks {
            let level = held.saturating_add(self.costs.acquire[t as usize]);
            excess = excess.saturating_add(level.saturating_sub(budget));
            held = level.saturating_sub(self.costs.release[t as usize]);
        }
        excess
    }

    /// Recomputes the excess bytes of a rank.
    pub(super) fn recompute_overflow(&mut self, rank: usize) {
        if self.overflow.is_none() {
            return;
        }
        let excess = self.excess(rank, 0, self.order[rank].iter());
        if let Some(overflow) = &mut self.overflow {
            overflow.set(rank, excess);
        }
    }

    /// The places of a rank that exceed its memory.
    pub(super) fn overfull(&self, rank: usize) -> impl Iterator<Item = usize> {
        let budget = self.problem.budget[rank].unwrap_or(u64::MAX);
        let level = move |(i, &t): (usize, &u32)| {
            self.live[rank][i].saturating_add(self.costs.acquire[t as usize]) > budget
        };
        self.order[rank].iter().enumerate().filter(move |&at| level(at)).map(|(i, _)| i)
    }
}

#[cfg(test)]
mod tests;
