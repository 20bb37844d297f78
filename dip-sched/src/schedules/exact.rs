//! The exact schedule: a proven optimum of small graphs.

use std::time::Instant;

use dip_core::{Budget, Environment, Plan, Schedule, ScheduleError, Seconds, TaskGraph};

use super::Dip;
use crate::ordering::Branch;
use crate::problem::Problem;

/// Tasks beyond which nothing is branched: a run would not come far.
const MOST_TASKS: usize = 600;
/// Nodes that count as one iteration of a budget.
const NODES: u64 = 1000;

/// Branch and bound over all orders and memory strategies, for a few dozen tasks.
///
/// It starts from what [`Dip`] finds in a part of the budget and gives the best it has when the budget ends. Where it has seen
/// everything before then, [`Plan::lower_bound_s`] is the makespan: the plan is proven optimal.
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
            Budget::Time(limit) => Budget::Time(limit * 0.1),
            budget => budget,
        };
        let problem = Problem::new(graph, self.name())?;
        let (first, bound) = Dip.solve(graph, &problem, &Environment { budget: part, ..*env })?;
        if problem.n > MOST_TASKS {
            return first.into_plan(graph, &problem, bound, self.name());
        }
        let ended = |nodes: u64| {
            let spent = match env.budget {
                Budget::Time(limit) => start.elapsed().as_secs_f64() >= limit.0,
                Budget::Iterations(limit) => nodes >= limit.saturating_mul(NODES),
            };
            spent || env.cancelled()
        };
        let outcome = Branch::new(&problem, first, ended).run();
        let mut plan = outcome.best.into_plan(graph, &problem, bound, self.name())?;
        if outcome.proven {
            // The search cuts what is better by less than rounding.
            plan.lower_bound_s = plan.predicted.makespan_s * (1.0 - 1e-9);
        }
        if let Some(progress) = env.progress {
            let elapsed = Seconds(start.elapsed().as_secs_f64());
            progress.improved(elapsed, 0, plan.predicted.makespan_s);
        }
        Ok(plan)
    }
}
