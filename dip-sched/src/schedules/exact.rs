//! The exact schedule: a proven optimum of small graphs.

use std::time::Instant;

use dip_core::{Budget, Environment, Plan, Schedule, ScheduleError, TaskGraph};

use super::{Dip, report};
use crate::ordering::{Branch, BranchOutcome};
use crate::problem::Problem;

/// Maximum number of tasks for branch and bound. Larger graphs get the plan of [`Dip`].
const MAX_TASKS: usize = 600;
/// Nodes that count as one iteration of a budget.
const NODES_PER_ITERATION: u64 = 1000;
/// Share of a budget in time for the first solution.
const SHARE_OF_FIRST: f64 = 0.1;

/// Branch and bound over all orders and memory strategies, for a few dozen tasks.
///
/// It starts from the plan that [`Dip`] finds in a part of the budget and returns the best plan when the budget ends. If it finishes
/// before that, [`Plan::lower_bound_s`] is the makespan: the plan is proven optimal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exact;

impl Schedule for Exact {
    fn name(&self) -> &str {
        "exact"
    }

    fn description(&self) -> &str {
        "branch and bound, proven optimal for a few dozen tasks"
    }

    fn splits_weights(&self) -> bool {
        true
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        let start = Instant::now();
        let part = match env.budget {
            Budget::Time(limit) => Budget::Time(limit * SHARE_OF_FIRST),
            budget => budget,
        };
        let problem = Problem::new(graph, self.name())?;
        let env_of_first = Environment { budget: part, ..*env };
        let (first, lower_bound_s) = Dip.solve(graph, &problem, &env_of_first)?;
        if problem.n > MAX_TASKS {
            return first.into_plan(graph, &problem, lower_bound_s, self.name());
        }
        let ended = |nodes: u64| {
            let over = match env.budget {
                Budget::Time(limit) => start.elapsed().as_secs_f64() >= limit.0,
                Budget::Iterations(limit) => nodes >= limit.saturating_mul(NODES_PER_ITERATION),
            };
            over || env.cancelled()
        };
        let BranchOutcome { best, proven } = Branch::new(&problem, first, ended).run();
        let mut plan = best.into_plan(graph, &problem, lower_bound_s, self.name())?;
        if proven {
            // The search drops solutions that are better by less than rounding.
            plan.lower_bound_s = plan.predicted.makespan_s * (1.0 - 1e-9);
        }
        report(env, start, &plan);
        Ok(plan)
    }
}
