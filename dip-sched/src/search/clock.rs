//! The budget of a search, in time or in iterations.

use std::time::Instant;

use dip_core::{Budget, Environment, Seconds};

/// Measures how much of the budget a search has used.
pub(super) struct BudgetClock<'a> {
    env: &'a Environment<'a>,
    start: Instant,
    iterations: u64,
}

impl<'a> BudgetClock<'a> {
    /// A clock that runs since `start`.
    pub(super) fn new(env: &'a Environment<'a>, start: Instant) -> Self {
        Self { env, start, iterations: 0 }
    }

    /// Adds iterations of the search.
    pub(super) fn count(&mut self, iterations: u64) {
        self.iterations += iterations;
    }

    /// Iterations so far.
    pub(super) fn iterations(&self) -> u64 {
        self.iterations
    }

    /// Time so far.
    pub(super) fn elapsed(&self) -> Seconds {
        Seconds(self.start.elapsed().as_secs_f64())
    }

    /// The budget of the search.
    pub(super) fn budget(&self) -> Budget {
        self.env.budget
    }

    /// The used share of a budget in time; 0 under an iteration budget, which must not depend on the time.
    pub(super) fn time_share(&self) -> f64 {
        match self.env.budget {
            Budget::Time(limit) => self.elapsed().0 / limit.0,
            Budget::Iterations(_) => 0.0,
        }
    }

    /// The used share of the budget, whether in time or in iterations.
    pub(super) fn share(&self) -> f64 {
        match self.env.budget {
            Budget::Time(_) => self.time_share(),
            Budget::Iterations(limit) => self.iterations as f64 / limit.max(1) as f64,
        }
    }

    /// True once this share of a budget in time is used, or the caller has asked to stop. Iteration budgets are compared between
    /// rounds only, by [`Self::is_over`].
    pub(super) fn is_past(&self, share: f64) -> bool {
        self.time_share() >= share || self.env.cancelled()
    }

    /// The rest of an iteration budget; `None` under a budget in time.
    pub(super) fn iterations_left(&self) -> Option<u64> {
        match self.env.budget {
            Budget::Time(_) => None,
            Budget::Iterations(limit) => Some(limit.saturating_sub(self.iterations)),
        }
    }

    /// True if the whole budget is used, or the caller has asked to stop.
    pub(super) fn is_over(&self) -> bool {
        self.is_past(1.0) || self.iterations_left() == Some(0)
    }
}
