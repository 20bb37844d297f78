//! Fills the gaps of an order.

use crate::ordering::{Interleaver, Reserve, RunSettings, sequence_of};
use crate::problem::{Order, Problem, TaskCosts, evaluate};

/// Fills gaps by dual-queue interleaving. Keep one per chain.
pub(super) struct Filler<'a> {
    problem: &'a Problem,
    interleaver: Interleaver<'a>,
}

impl<'a> Filler<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        Self { problem, interleaver: Interleaver::new(problem) }
    }

    /// Runs the tasks of an order by their starts, but lets a rank that would wait run others ahead. Memory is reserved for the
    /// order itself, so that ranks stay within it. Returns the makespan if it is below the cutoff of `settings`.
    pub(super) fn fill(
        &mut self,
        costs: &TaskCosts,
        order: &Order,
        settings: RunSettings<'_>,
    ) -> Option<f64> {
        let starts = evaluate::starts(self.problem, &costs.dur, order)?;
        let mut reserve = Reserve::new(self.problem, costs, &sequence_of(self.problem, order));
        self.interleaver.run(costs, &mut reserve, &starts, settings)
    }

    /// The order of the last run.
    pub(super) fn order(&self) -> Order {
        self.interleaver.order()
    }
}
