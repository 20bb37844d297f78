//! One choice of memory strategies, with what every order under it needs.

use dip_core::ScheduleError;

use crate::problem::{Choice, Costs, Problem};
use crate::realise::levels;
use crate::reserve::Reserve;
use crate::sequence::{feasible_sequence, sequence_by};

/// A choice with durations, tails and memory levels.
#[derive(Clone)]
pub(super) struct Level {
    pub(super) choice: Choice,
    pub(super) costs: Costs,
    pub(super) tail: Vec<f64>,
    pub(super) reserve: Reserve,
}

impl Level {
    /// Every level that fits, from the fastest strategies to the smallest.
    ///
    /// # Errors
    /// [`ScheduleError::Infeasible`] where not even the smallest strategies fit.
    pub(super) fn all(problem: &Problem) -> Result<Vec<Self>, ScheduleError> {
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

    /// A level of any choice, where tasks fit one after the other in the order of their turns.
    pub(super) fn new(problem: &Problem, choice: Choice, turn: &[f64]) -> Option<Self> {
        let costs = problem.costs(&choice);
        let witness = sequence_by(problem, &costs, turn)?;
        Some(Self::of(problem, choice, costs, &witness))
    }

    fn of(problem: &Problem, choice: Choice, costs: Costs, witness: &[u32]) -> Self {
        let reserve = Reserve::new(problem, &costs, witness);
        let tail = problem.tails(&costs.dur);
        Self { choice, costs, tail, reserve }
    }
}
