//! One choice of memory strategies, with what every order under it needs.

use dip_core::ScheduleError;

use crate::ordering::Reserve;
use crate::ordering::levels;
use crate::ordering::{Turns, feasible_sequence};
use crate::problem::{Choice, Costs, Problem};

/// A choice with durations, tails and memory levels.
#[derive(Clone)]
pub(in crate::search) struct Level {
    pub(in crate::search) choice: Choice,
    pub(in crate::search) costs: Costs,
    pub(in crate::search) tail: Vec<f64>,
    pub(in crate::search) reserve: Reserve,
}

impl Level {
    /// Every level that fits, from the fastest strategies to the smallest.
    ///
    /// # Errors
    /// [`ScheduleError::Infeasible`] where not even the smallest strategies fit.
    pub(in crate::search) fn all(problem: &Problem) -> Result<Vec<Self>, ScheduleError> {
        let mut infeasible = None;
        let mut all = Vec::new();
        for choice in levels(problem) {
            let costs = problem.costs(&choice);
            match feasible_sequence(problem, &costs) {
                Ok(witness) => all.push(Self::of(problem, choice, costs, &witness)),
                Err(error) => infeasible = Some(error),
            }
        }
        match infeasible {
            Some(error) if all.is_empty() => Err(error),
            _ => Ok(all),
        }
    }

    /// A level of another choice, where microbatches fit one after the other in the order of their turns.
    pub(in crate::search) fn new(
        problem: &Problem,
        choice: Choice,
        (turns, turn): (&Turns, &[f64]),
    ) -> Option<Self> {
        let costs = problem.costs(&choice);
        let witness = turns.sequence(problem, &costs, turn)?;
        Some(Self::of(problem, choice, costs, &witness))
    }

    /// The same choice for other turns of the microbatches, where they fit.
    pub(in crate::search) fn turned(
        &self,
        problem: &Problem,
        (turns, turn): (&Turns, &[f64]),
    ) -> Option<Self> {
        let witness = turns.sequence(problem, &self.costs, turn)?;
        let reserve = Reserve::new(problem, &self.costs, &witness);
        let (choice, costs, tail) = (self.choice.clone(), self.costs.clone(), self.tail.clone());
        Some(Self { choice, costs, tail, reserve })
    }

    fn of(problem: &Problem, choice: Choice, costs: Costs, witness: &[u32]) -> Self {
        let reserve = Reserve::new(problem, &costs, witness);
        let tail = problem.tails(&costs.dur);
        Self { choice, costs, tail, reserve }
    }
}
