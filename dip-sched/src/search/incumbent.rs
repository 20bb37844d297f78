//! The best solution of a search so far.

use dip_core::{SearchProgress, Seconds};

use super::clock::BudgetClock;
use crate::problem::{Problem, Solution, evaluate};

/// The best solution so far, with a proven lower bound.
pub(super) struct Incumbent<'a> {
    problem: &'a Problem,
    progress: Option<&'a dyn SearchProgress>,
    best: Solution,
    /// Proven lower bound on the makespan of every plan.
    lower_bound_s: f64,
    /// The search ends within this share of the bound.
    tolerance: f64,
    proven: bool,
}

impl<'a> Incumbent<'a> {
    pub(super) fn new(
        problem: &'a Problem,
        progress: Option<&'a dyn SearchProgress>,
        first: Solution,
        tolerance: f64,
    ) -> Self {
        let lower_bound_s = crate::bounds::lower_bound_of(problem);
        Self { problem, progress, best: first, lower_bound_s, tolerance, proven: false }
    }

    /// The best solution so far.
    pub(super) fn best(&self) -> &Solution {
        &self.best
    }

    /// The best solution and the lower bound.
    pub(super) fn into_best(self) -> (Solution, f64) {
        (self.best, self.lower_bound_s)
    }

    /// Keeps a solution if it is the best so far, and reports it.
    pub(super) fn offer(&mut self, solution: Solution, clock: &BudgetClock<'_>) {
        if solution.makespan >= self.best.makespan {
            return;
        }
        debug_assert!(evaluate::fits(
            self.problem,
            &self.problem.costs(&solution.choice),
            &solution.order
        ));
        self.best = solution;
        if let Some(progress) = self.progress {
            let makespan = Seconds(self.best.makespan);
            progress.improved(clock.elapsed(), clock.iterations(), makespan);
        }
    }

    /// Records that the best solution is proven optimal.
    pub(super) fn mark_proven(&mut self) {
        self.proven = true;
    }

    /// True if the best solution is proven optimal or meets the lower bound within the tolerance.
    pub(super) fn is_optimal(&self) -> bool {
        self.proven || self.best.makespan <= self.lower_bound_s * (1.0 + self.tolerance)
    }
}
