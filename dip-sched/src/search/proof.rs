//! Branch and bound as a phase of the search: on a small graph it may prove the best solution or improve it.

use dip_core::Budget;

use super::Search;
use crate::ordering::{Branch, BranchOutcome};

/// Maximum number of tasks for branch and bound.
const MAX_TASKS: usize = 80;
/// Share of the remaining budget.
const SHARE: f64 = 0.25;
/// Nodes that count as one iteration of a budget.
const NODES_PER_ITERATION: u64 = 100;

/// Branch and bound for a quarter of the budget.
pub(super) struct BranchAndBound;

impl BranchAndBound {
    /// True if the graph is small enough.
    pub(super) fn applies(search: &Search<'_>) -> bool {
        search.problem.n <= MAX_TASKS
    }

    pub(super) fn run(self, search: &mut Search<'_>) {
        let (max_nodes, until) = match search.clock.budget() {
            Budget::Time(_) => {
                let used = search.clock.time_share();
                (u64::MAX, used + SHARE * (1.0 - used))
            }
            Budget::Iterations(limit) => ((limit / 4).saturating_mul(NODES_PER_ITERATION), 1.0),
        };
        let this = &*search;
        let ended = |nodes: u64| nodes >= max_nodes || this.clock.is_past(until);
        let first = this.incumbent.best().clone();
        let BranchOutcome { best, proven } = Branch::new(this.problem, first, ended).run();
        if proven {
            search.incumbent.mark_proven();
        }
        search.offer(best);
    }
}
