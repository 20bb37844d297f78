//! Walks through orders that do not fit in memory: strategic oscillation.
//!
//! Where memory is tight, the way from one order that fits to a better one often leads over orders that do not. A loose walk may
//! take it: bytes beyond a limit cost seconds, at a price that rises while the order does not fit and falls while it does.

use super::selection::{Selection, Shift};

/// By how much the price rises or falls in a step.
const PACE: f64 = 1.1;

/// What a loose walk pays for memory it does not have.
#[derive(Debug, Clone)]
pub(in crate::search) struct Overflow {
    /// Bytes beyond the limit of each rank, summed over its places.
    bytes: Vec<u64>,
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
    pub(in crate::search) fn loosen(&mut self) {
        let held: f64 = self.costs.acquire.iter().map(|&b| b as f64).sum();
        let price = self.costs.dur.iter().sum::<f64>() / held.max(1.0);
        self.overflow = Some(Overflow { bytes: vec![0; self.order.len()], price });
    }

    /// Whether the order fits in memory.
    pub(in crate::search) fn fits(&self) -> bool {
        self.overflow.as_ref().is_none_or(|o| o.total() == 0)
    }

    /// Adapts the price after a step.
    pub(in crate::search) fn reprice(&mut self) {
        let fits = self.fits();
        if let Some(overflow) = &mut self.overflow {
            overflow.price *= if fits { PACE.recip() } else { PACE };
        }
    }

    /// Seconds to pay for the memory that would be missing after a move.
    pub(in crate::search) fn toll(&self, shift: Shift) -> f64 {
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
    pub(in crate::search) fn recount(&mut self, rank: usize) {
        if self.overflow.is_none() {
            return;
        }
        let missing = self.missing(rank, 0, self.order[rank].iter());
        if let Some(overflow) = &mut self.overflow {
            overflow.bytes[rank] = missing;
        }
    }

    /// The places of a rank at which memory is missing.
    pub(in crate::search) fn overfull(&self, rank: usize) -> impl Iterator<Item = usize> {
        let budget = self.problem.budget[rank].unwrap_or(u64::MAX);
        let level = move |(i, &t): (usize, &u32)| {
            self.live[rank][i].saturating_add(self.costs.acquire[t as usize]) > budget
        };
        self.order[rank].iter().enumerate().filter(move |&at| level(at)).map(|(i, _)| i)
    }
}

#[cfg(test)]
mod tests {
    use dip_core::{
        Bytes, Dep, MicrobatchId, RankId, Seconds, SegmentId, Strategy, SubMicrobatchId, Task,
        TaskGraph, TaskId, TaskKind,
    };
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::problem::Problem;
    use crate::problem::Solution;
    use crate::search::walk::moves::allowed;

    /// Forwards and backwards of eight microbatches on one rank with room for two of them.
    fn graph() -> TaskGraph {
        let task = |id: usize| Task {
            id: TaskId::from(id),
            rank: RankId::from(0),
            kind: if id.is_multiple_of(2) { TaskKind::Forward } else { TaskKind::Backward },
            module: "m".into(),
            segment: SegmentId(0),
            microbatch: MicrobatchId::from(id / 2),
            sub_microbatch: SubMicrobatchId(0),
            duration_s: Seconds(1.0 + (id % 3) as f64),
            activation_bytes: Bytes(if id.is_multiple_of(2) { 5 + id as u64 % 3 } else { 0 }),
            strategy: Strategy::keep(),
            deps: (0..id % 2)
                .map(|_| Dep { task: TaskId::from(id - 1), comm_s: Seconds(0.0) })
                .collect(),
            candidates: Vec::new(),
        };
        TaskGraph {
            model: "chain".into(),
            cluster: "none".into(),
            ranks: 1,
            memory_limit_bytes: vec![Bytes(12)],
            static_bytes: vec![Bytes(0)],
            tasks: (0..16).map(task).collect(),
        }
    }

    #[test]
    fn the_toll_of_a_move_is_what_is_missing_once_it_is_made() {
        let problem = Problem::new(&graph(), "test").unwrap();
        let first = Solution {
            order: vec![(0..16).collect()],
            choice: problem.fastest(),
            makespan: f64::INFINITY,
        };
        let mut selection = Selection::new(&problem, &first).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let draw = |rng: &mut ChaCha8Rng| {
            let (from, to) = (rng.random_range(0..16), rng.random_range(0..16));
            Shift { rank: 0, from, to }
        };
        for _ in 0..100 {
            // Where every move must fit, the order stays within memory.
            if let Some(shift) = allowed(&selection, draw(&mut rng)) {
                selection.shift(shift);
            }
            assert_eq!((selection.overfull(0).count(), selection.fits()), (0, true));
        }
        selection.loosen();
        let mut exceeded = 0;
        for _ in 0..300 {
            let Some(shift) = allowed(&selection, draw(&mut rng)) else { continue };
            let toll = selection.toll(shift);
            assert!(selection.shift(shift));
            let overflow = selection.overflow.as_ref().unwrap();
            assert!((toll - overflow.price * overflow.total() as f64).abs() < 1e-9 * (1.0 + toll));
            assert_eq!(selection.fits(), selection.overfull(0).count() == 0);
            exceeded += u32::from(!selection.fits());
        }
        assert!(exceeded > 100, "{exceeded}");
        assert!(selection.load(&first) && selection.overflow.is_none());
    }
}
