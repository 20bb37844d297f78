//! A level of memory: a choice of strategies with everything that depends on it.

use dip_core::ScheduleError;

use crate::ordering::{MicrobatchSequences, Reserve, feasible_sequence, strategy_levels};
use crate::problem::{Choice, Problem, TaskCosts};

/// A choice of strategies with its durations, its tails and the memory it reserves.
#[derive(Clone)]
pub(super) struct Level {
    pub(super) choice: Choice,
    pub(super) costs: TaskCosts,
    /// Seconds on the longest path from the end of each task to the end of the iteration.
    pub(super) tail: Vec<f64>,
    pub(super) reserve: Reserve,
}

/// No witness fits in memory under these strategies.
pub(super) struct Unfit;

impl Level {
    /// Every level that fits, from the fastest strategies to the smallest.
    ///
    /// # Errors
    /// [`ScheduleError::Infeasible`] if not even the smallest strategies fit.
    pub(super) fn all(problem: &Problem) -> Result<Vec<Self>, ScheduleError> {
        let mut infeasible = None;
        let mut all = Vec::new();
        for choice in strategy_levels(problem) {
            let costs = problem.costs(&choice);
            match feasible_sequence(problem, &costs) {
                Ok(witness) => all.push(Self::new(problem, choice, costs, &witness)),
                Err(error) => infeasible = Some(error),
            }
        }
        match infeasible {
            Some(error) if all.is_empty() => Err(error),
            _ => Ok(all),
        }
    }

    /// A level that reserves memory for the sequence `witness`.
    pub(super) fn new(
        problem: &Problem,
        choice: Choice,
        costs: TaskCosts,
        witness: &[u32],
    ) -> Self {
        let reserve = Reserve::new(problem, &costs, witness);
        let tail = problem.tails(&costs.dur);
        Self { choice, costs, tail, reserve }
    }

    /// A level that reserves memory for microbatches in the order of `turn`. `None` if they do not fit one after another.
    pub(super) fn for_turns(
        problem: &Problem,
        choice: Choice,
        sequences: &MicrobatchSequences,
        turn: &[f64],
    ) -> Option<Self> {
        let costs = problem.costs(&choice);
        let witness = sequences.in_turn(problem, &costs, turn)?;
        Some(Self::new(problem, choice, costs, &witness))
    }

    /// The same strategies with memory reserved for microbatches in the order of `turn`. `None` if they do not fit.
    pub(super) fn with_turns(
        &self,
        problem: &Problem,
        sequences: &MicrobatchSequences,
        turn: &[f64],
    ) -> Option<Self> {
        let witness = sequences.in_turn(problem, &self.costs, turn)?;
        let reserve = Reserve::new(problem, &self.costs, &witness);
        let (choice, costs, tail) = (self.choice.clone(), self.costs.clone(), self.tail.clone());
        Some(Self { choice, costs, tail, reserve })
    }
}
