//! Walks through orders that do not fit in memory: strategic oscillation.
//!
//! Under tight memory, the path from one fitting order to a better one often leads through orders that do not fit. A loose walk may
//! take it. Bytes beyond a limit cost seconds, at a price that rises while the order does not fit and falls while it does.

use super::disjunctive_graph::{DisjunctiveGraph, Shift};

/// Factor by which the price rises or falls in a step.
const PRICE_FACTOR: f64 = 1.1;

/// The exceeded memory of a loose walk, and its price.
#[derive(Debug, Clone)]
pub(super) struct Overflow {
    /// Bytes beyond the limit of each rank, summed over its places.
    bytes: Vec<u64>,
    /// Seconds for each excess byte at one place.
    price: f64,
}

impl Overflow {
    fn total(&self) -> u64 {
        self.bytes.iter().fold(0, |sum, &b| sum.saturating_add(b))
    }
}

impl DisjunctiveGraph<'_> {
    /// Lets the next moves exceed memory, at a price, until the next [`DisjunctiveGraph::load`].
    pub(super) fn loosen(&mut self) {
        let held: f64 = self.costs.acquire.iter().map(|&b| b as f64).sum();
        let price = self.costs.dur.iter().sum::<f64>() / held.max(1.0);
        self.overflow = Some(Overflow { bytes: vec![0; self.order.len()], price });
    }

    /// True if the order fits in memory.
    pub(super) fn fits(&self) -> bool {
        self.overflow.as_ref().is_none_or(|o| o.total() == 0)
    }

    /// Adjusts the price after a step.
    pub(super) fn reprice(&mut self) {
        let fits = self.fits();
        if let Some(overflow) = &mut self.overflow {
            overflow.price *= if fits { PRICE_FACTOR.recip() } else { PRICE_FACTOR };
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
        let total = overflow.total().saturating_sub(now).saturating_add(then);
        total as f64 * overflow.price
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
            overflow.bytes[rank] = excess;
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
    fn the_toll_of_a_move_is_the_price_of_the_excess_after_it() {
        let problem = Problem::new(&graph(), "test").unwrap();
        let first = Solution {
            order: vec![(0..16).collect()],
            choice: problem.fastest(),
            makespan: f64::INFINITY,
        };
        let mut graph = DisjunctiveGraph::new(&problem, &first).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let draw = |rng: &mut ChaCha8Rng| {
            let (from, to) = (rng.random_range(0..16), rng.random_range(0..16));
            Shift { rank: 0, from, to }
        };
        for _ in 0..100 {
            // Every move must fit, so the order stays within memory.
            if let Some(shift) = allowed(&graph, draw(&mut rng)) {
                graph.shift(shift);
            }
            assert_eq!((graph.overfull(0).count(), graph.fits()), (0, true));
        }
        graph.loosen();
        let mut exceeded = 0;
        for _ in 0..300 {
            let Some(shift) = allowed(&graph, draw(&mut rng)) else { continue };
            let toll = graph.toll(shift);
            assert!(graph.shift(shift));
            let overflow = graph.overflow.as_ref().unwrap();
            assert!((toll - overflow.price * overflow.total() as f64).abs() < 1e-9 * (1.0 + toll));
            assert_eq!(graph.fits(), graph.overfull(0).count() == 0);
            exceeded += u32::from(!graph.fits());
        }
        assert!(exceeded > 100, "{exceeded}");
        assert!(graph.load(&first) && graph.overflow.is_none());
    }
}
