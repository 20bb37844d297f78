//! Plans for stages that do not take their planned times.
//!
//! A late stage delays the ranks that wait for it. An order with time to spare between ranks absorbs that. So once an order is near the
//! bound, the search runs again on copies of the problem in which messages take longer, and a judge chooses among all orders that are
//! about as long as the best.

use std::time::Instant;

use dip_core::{Budget, Environment, Plan, PlanJudge, ScheduleError, Seconds, TaskGraph};
use rayon::prelude::*;

use super::pool::Pool;
use super::{Found, Search, threads};
use crate::problem::{Problem, Solution, evaluate};

/// The time that messages take longer, in deviations of the stages that send them.
const SLACKS: [f64; 3] = [2.0, 6.0, 20.0];
/// Share of a budget in time until which the first search may run.
const SHARE_OF_FIRST: f64 = 0.8;
/// Share of a budget in time that is left for the judge.
const SHARE_OF_JUDGE: f64 = 0.1;
/// Iterations of a search with longer messages, as a share of those of the first.
const SHARE_OF_ITERATIONS: f64 = 0.25;
/// Messages are made longer once an order is above the bound by at most this share. Before, a shorter order is worth more.
const NEAR_BOUND: f64 = 0.002;
/// Orders are judged if they are longer than the best by at most this share.
const NEAR_BEST: f64 = 0.01;
/// Maximum number of orders that are judged.
const MAX_JUDGED: usize = 32;
/// Scenarios of the first round. Each round has twice as many, for the better half of the orders.
const FIRST_SCENARIOS: u32 = 8;

/// A search with a judge.
pub(crate) struct Robust<'a> {
    pub(crate) judge: &'a dyn PlanJudge,
    pub(crate) graph: &'a TaskGraph,
    pub(crate) problem: &'a Problem,
    pub(crate) env: &'a Environment<'a>,
    /// When the budget began.
    pub(crate) start: Instant,
}

impl Robust<'_> {
    /// Improves `first` and returns the plan with the shortest expected makespan.
    ///
    /// # Errors
    /// Same as [`Search::new`] and [`Search::run`].
    pub(crate) fn run(&self, first: Solution, schedule: &str) -> Result<Plan, ScheduleError> {
        let mut near = Pool::of_size(MAX_JUDGED);
        let env = Environment { budget: self.budget(SHARE_OF_FIRST, 1.0), ..*self.env };
        let found = Search::new(self.problem, &env, first, Instant::now())?.run(self.graph)?;
        let Found { best, near: others, lower_bound_s } = found;
        others.into_iter().for_each(|other| {
            near.offer(other);
        });
        near.offer(best.clone());
        if best.makespan <= lower_bound_s * (1.0 + NEAR_BOUND) {
            for (i, slack) in SLACKS.into_iter().enumerate() {
                let left = 1.0 - SHARE_OF_JUDGE - self.used();
                let until = self.used() + left / (SLACKS.len() - i) as f64;
                self.with_slack(slack, self.budget(until, SHARE_OF_ITERATIONS), &best, &mut near)?;
            }
        }
        let plan = |s: Solution| s.into_plan(self.graph, self.problem, lower_bound_s, schedule);
        let longest = best.makespan * (1.0 + NEAR_BEST);
        let near = near.into_members().into_iter().filter(|s| s.makespan <= longest);
        let plans = near.map(plan).collect::<Result<Vec<_>, _>>()?;
        threads(self.env)?.install(|| self.race(plans)).map_or_else(|| plan(best), Ok)
    }

    /// Searches with longer messages, from the order of `first`, and adds what it finds to `near`.
    fn with_slack(
        &self,
        slack: f64,
        budget: Budget,
        first: &Solution,
        near: &mut Pool,
    ) -> Result<(), ScheduleError> {
        let problem = self.problem.with_slack(slack * self.judge.deviation());
        let env = Environment { budget, ..*self.env };
        let first = retimed(&problem, first.clone());
        let Found { best, near: others, .. } =
            Search::new(&problem, &env, first, Instant::now())?.run(self.graph)?;
        for other in others.into_iter().chain([best]) {
            near.offer(retimed(self.problem, other));
        }
        Ok(())
    }

    /// The used share of a budget in time; 0 under an iteration budget.
    fn used(&self) -> f64 {
        match self.env.budget {
            Budget::Time(limit) => self.start.elapsed().as_secs_f64() / limit.0,
            Budget::Iterations(_) => 0.0,
        }
    }

    /// A budget in time that ends at the share `until` of the whole, or a share of the iterations.
    fn budget(&self, until: f64, of_iterations: f64) -> Budget {
        match self.env.budget {
            Budget::Time(limit) => {
                Budget::Time(Seconds(((until - self.used()) * limit.0).max(0.0)))
            }
            Budget::Iterations(n) => Budget::Iterations((of_iterations * n as f64) as u64),
        }
    }

    /// Judges plans in rounds with ever more scenarios and fewer plans. Ends early if the budget is used.
    fn race(&self, mut plans: Vec<Plan>) -> Option<Plan> {
        let all = self.judge.scenarios();
        let mut scenarios = FIRST_SCENARIOS.min(all);
        loop {
            let judge = |plan: Plan| (self.judge.expected(&plan, scenarios).0, plan);
            let mut judged: Vec<(f64, Plan)> = plans.into_par_iter().map(judge).collect();
            judged.sort_by(|a, b| a.0.total_cmp(&b.0));
            let is_last =
                judged.len() <= 1 || scenarios == all || self.env.cancelled() || self.used() >= 1.0;
            judged.truncate(if is_last { 1 } else { judged.len().div_ceil(2) });
            plans = judged.into_iter().map(|(_, plan)| plan).collect();
            if is_last {
                return plans.pop();
            }
            scenarios = scenarios.saturating_mul(2).min(all);
        }
    }
}

/// A solution with its makespan in `problem`, which differs from its own problem in times of messages only.
fn retimed(problem: &Problem, mut solution: Solution) -> Solution {
    let costs = problem.costs(&solution.choice);
    let makespan = evaluate::makespan(problem, &costs.dur, &solution.order);
    solution.makespan = makespan.unwrap_or(f64::INFINITY);
    solution
}
