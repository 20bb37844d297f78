//! The paper's search with one of several reorderers, for comparison.

use std::time::Instant;

use dip_core::{Environment, Plan, Schedule, ScheduleError, TaskGraph};

use super::one_f_one_b;
use crate::ordering::realise;
use crate::problem::Problem;
use crate::search::{DepthFirst, LocalSearch, Mcts, RandomOrder, Reorder, Search};

/// The paper's three phases: reordering of segment groups, dual-queue interleaving, memory optimisation.
///
/// [`Dip`](super::Dip) searches further; these schedules show by how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reordered {
    /// Monte-Carlo tree search, the method of the paper.
    Mcts,
    /// Sequences in depth-first order.
    DepthFirst,
    /// Random sequences.
    Random,
    /// Local search from the order of the batch.
    Local,
}

impl Schedule for Reordered {
    fn name(&self) -> &str {
        match self {
            Self::Mcts => "dip-mcts",
            Self::DepthFirst => "dip-dfs",
            Self::Random => "dip-random",
            Self::Local => "dip-local",
        }
    }

    fn description(&self) -> &str {
        match self {
            Self::Mcts => "the paper's search: Monte-Carlo tree search over segment groups",
            Self::DepthFirst => "the paper's search with sequences in depth-first order",
            Self::Random => "the paper's search with random sequences",
            Self::Local => "the paper's search with local search in place of the tree",
        }
    }

    fn searches(&self) -> bool {
        true
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        let start = Instant::now();
        let problem = Problem::new(graph, self.name())?;
        let first = realise(&problem, &[one_f_one_b::target_order(&problem)], || false)?;
        let groups = problem.groups;
        let mut reorder: Box<dyn Reorder> = match self {
            Self::Mcts => Box::new(Mcts::new(groups)),
            Self::DepthFirst => Box::new(DepthFirst::new(groups)),
            Self::Random => Box::new(RandomOrder::new(groups)),
            Self::Local => Box::new(LocalSearch::new(groups)),
        };
        let search = Search::new(&problem, env, first, start)?;
        let (best, lower_bound_s) = search.run_paper(&mut *reorder)?;
        best.into_plan(graph, &problem, lower_bound_s, self.name())
    }
}
