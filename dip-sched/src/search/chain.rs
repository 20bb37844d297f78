//! Chains: local search that keeps a change unless the order gets longer.

use crate::problem::Solution;

/// Runs without a shorter order after which a chain stops.
const MAX_IDLE_RUNS: u64 = 1500;

/// A chain of orders, each a small change of the one before.
pub(super) trait Chain: Send {
    /// One run: changes the order, and keeps the change unless the order gets longer than `slack` times the current one. The first
    /// run of a chain tries its start unchanged.
    fn step(&mut self, slack: f64);

    /// The best order so far.
    fn best(&self) -> Option<&Solution>;

    /// The best order.
    fn into_best(self: Box<Self>) -> Option<Solution>;

    /// The makespan of the best order so far.
    fn makespan(&self) -> f64 {
        self.best().map_or(f64::INFINITY, |best| best.makespan)
    }

    /// Makes at most `runs` runs, in which an order may be longer than the current one by the share `slack`. Stops early after many
    /// runs without a better order.
    fn run(&mut self, runs: u64, slack: f64, ended: &mut dyn FnMut() -> bool) {
        let (mut idle, mut best_s) = (0, self.makespan());
        for _ in 0..runs {
            if idle > MAX_IDLE_RUNS || ended() {
                break;
            }
            self.step(1.0 + slack);
            idle = if self.makespan() < best_s { 0 } else { idle + 1 };
            best_s = self.makespan();
        }
    }
}
