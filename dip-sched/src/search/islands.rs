//! Islands: rounds of tabu walks, each from a pool of good orders.

use rand::Rng;
use rayon::prelude::*;

use super::pool::Pool;
use super::proof::BranchAndBound;
use super::tournament::restart;
use super::walk::{WalkResult, Walker};
use super::{RngStream, Search};
use crate::problem::Solution;

/// Maximum number of orders in the pool of an island.
const MAX_MEMBERS: usize = 8;
/// The number of islands, and of walks in a round.
const ISLANDS: u64 = 4;
/// An order joins an island at the start if it is longer than the best by at most this share.
const NEAR: f64 = 0.003;
/// Rounds without a better order after which an island restarts.
const MAX_STALE_ROUNDS: u32 = 12;
/// The round after which branch and bound runs.
const ROUND_OF_PROOF: u64 = 2;

/// Pools of good orders that improve side by side.
pub(super) struct Islands {
    pools: Vec<Pool>,
    /// Rounds since the last better order of each island.
    stale: Vec<u32>,
    round: u64,
}

impl Islands {
    /// Spreads the orders that are near the best over the islands.
    pub(super) fn new(search: &Search<'_>, starts: &[Solution]) -> Self {
        let mut pools: Vec<Pool> = (0..ISLANDS).map(|_| Pool::of_size(MAX_MEMBERS)).collect();
        let best = search.incumbent.best();
        let near = |s: &&Solution| s.makespan <= best.makespan * (1.0 + NEAR);
        for (i, start) in starts.iter().filter(near).enumerate() {
            pools[i % ISLANDS as usize].offer(start.clone());
        }
        for pool in &mut pools {
            pool.offer(best.clone());
        }
        Self { pools, stale: vec![0; ISLANDS as usize], round: 0 }
    }

    /// Runs rounds of walks until the search is over.
    pub(super) fn run(mut self, search: &mut Search<'_>) {
        while !search.is_over() {
            let this = &*search;
            let walker = || Walker::new(this.problem);
            let job = |walker: &mut Walker<'_>, island: u64| self.walk(this, walker, island);
            let results: Vec<Option<WalkResult>> =
                (0..ISLANDS).into_par_iter().map_init(walker, job).collect();
            for (island, result) in results.into_iter().enumerate() {
                if let Some(result) = result {
                    self.merge(search, island, result);
                }
            }
            // The first island always continues from the best order.
            if self.stale[0] > MAX_STALE_ROUNDS {
                self.stale[0] = 0;
                self.pools[0].offer(search.incumbent.best().clone());
            }
            self.round += 1;
            if self.round == ROUND_OF_PROOF && BranchAndBound::applies(search) {
                BranchAndBound.run(search);
                self.pools[0].offer(search.incumbent.best().clone());
            }
        }
        for pool in self.pools {
            pool.into_members().into_iter().for_each(|order| search.keep_near(order));
        }
    }

    /// One walk of an island.
    fn walk(
        &self,
        search: &Search<'_>,
        walker: &mut Walker<'_>,
        island: u64,
    ) -> Option<WalkResult> {
        let ended = || search.clock.is_past(1.0);
        let job = self.round * ISLANDS + island;
        let mut rng = search.rng(RngStream::Walk, job);
        if self.stale[island as usize] > MAX_STALE_ROUNDS
            && let Some(order) = restart(search, job)
        {
            return walker.polish(&order, &mut rng, ended);
        }
        // Now and then a walk starts from an order of the next island.
        let next = u64::from(rng.random_range(0..24) == 0);
        let members = self.pools[((island + next) % ISLANDS) as usize].members();
        if self.round == 0 {
            return walker.polish(&members[0], &mut rng, ended);
        }
        let from = &members[rng.random_range(0..members.len())];
        walker.explore(from, &mut rng, ended)
    }

    fn merge(&mut self, search: &mut Search<'_>, island: usize, result: WalkResult) {
        search.clock.count(result.iterations);
        search.offer(result.best.clone());
        let (pool, stale) = (&mut self.pools[island], &mut self.stale[island]);
        if *stale > MAX_STALE_ROUNDS {
            pool.clear();
        }
        *stale = if pool.offer(result.best) { 0 } else { *stale + 1 };
    }
}
