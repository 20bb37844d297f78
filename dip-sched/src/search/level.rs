//! One choice of memory strategies, with what every order under it needs.

use dip_core::ScheduleError;

use crate::problem::{Choice, Costs, Problem};
use crate::realise::levels;
use crate::reserve::Reserve;
use crate::sequence::feasible_sequence;

/// A choice with durations, tails and memory levels.
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
                Ok(witness) => {
                    let reserve = Reserve::new(problem, &costs, &witness);
                    let tail = problem.tails(&costs.dur);
                    all.push(Self { choice, costs, tail, reserve });
                }
                Err(error) => infeasible = Some(error),
            }
        }
        match infeasible {
            Some(error) if all.is_empty() => Err(error),
            _ => Ok(all),
        }
    }
}
