//! The load of every rank, with the busiest and the lightest rank at hand.

use std::cmp::Ordering;
use std::collections::BTreeSet;

/// The seconds of every rank. Changes and both extremes take `O(log P)` steps.
#[derive(Clone)]
pub(super) struct RankLoads {
    seconds: Vec<f64>,
    order: BTreeSet<RankLoad>,
}

/// The load of a rank, ordered by its seconds and then by rank.
#[derive(Clone, Copy)]
struct RankLoad {
    seconds: f64,
    rank: usize,
}

impl RankLoads {
    pub(super) fn new(ranks: usize, seconds: impl Fn(usize) -> f64) -> Self {
        let seconds: Vec<f64> = (0..ranks).map(seconds).collect();
        let loads = seconds.iter().enumerate();
        let order = loads.map(|(rank, &seconds)| RankLoad { seconds, rank }).collect();
        Self { seconds, order }
    }

    pub(super) fn of(&self, rank: usize) -> f64 {
        self.seconds[rank]
    }

    pub(super) fn set(&mut self, rank: usize, seconds: f64) {
        self.order.remove(&RankLoad { seconds: self.seconds[rank], rank });
        self.order.insert(RankLoad { seconds, rank });
        self.seconds[rank] = seconds;
    }

    /// The rank with the highest load; the last one on ties.
    pub(super) fn busiest(&self) -> usize {
        self.order.last().map_or(0, |l| l.rank)
    }

    /// The rank with the lowest load; the first one on ties.
    pub(super) fn lightest(&self) -> usize {
        self.order.first().map_or(0, |l| l.rank)
    }
}

impl Ord for RankLoad {
    fn cmp(&self, other: &Self) -> Ordering {
        self.seconds.total_cmp(&other.seconds).then(self.rank.cmp(&other.rank))
    }
}

impl PartialOrd for RankLoad {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RankLoad {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for RankLoad {}
