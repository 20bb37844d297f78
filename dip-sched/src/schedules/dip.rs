//! The default schedule: a search for the order and the memory strategies of every batch.

use std::time::Instant;

use dip_core::{Budget, Environment, Plan, Schedule, ScheduleError, TaskGraph};

use super::{gpipe, interleaved, one_f_one_b, optimus, wave, zero_bubble};
use crate::ordering::realise;
use crate::problem::{Problem, Solution};
use crate::search::{Found, Robust, Search};

/// Maximum number of tasks for which all classical schedules are realised first. In larger graphs the search finds shorter orders
/// in less time.
const MAX_TASKS_FOR_ALL_TARGETS: usize = 6000;

/// Share of a budget in time after which no more classical schedules are tried.
const SHARE: f64 = 0.1;

/// Dynamic interleaving: a search for the order and the memory strategies of one batch (paper section 2).
///
/// It starts from the best classical order and improves the order and the strategies together.
///
/// ```
/// # use dip_core::{Budget, Environment, Schedule, Seconds, TaskGraph};
/// # fn example(graph: &TaskGraph) -> Result<(), dip_core::ScheduleError> {
/// let env = Environment { budget: Budget::Time(Seconds(2.0)), threads: 2, ..Environment::default() };
/// let plan = dip_sched::Dip.plan(graph, &env)?;
/// println!("{} ({:.1} % above the bound)", plan.predicted.makespan_s, 100.0 * plan.gap());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Dip;

impl Schedule for Dip {
    fn name(&self) -> &str {
        "dip"
    }

    fn description(&self) -> &str {
        "searched for every batch: priorities, dual-queue interleaving, memory strategies; the default"
    }

    fn searches(&self) -> bool {
        true
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        let problem = Problem::new(graph, self.name())?;
        if let Some(judge) = env.judge {
            let start = Instant::now();
            let first = first(graph, &problem, env, start)?;
            let robust = Robust { judge, graph, problem: &problem, env, start };
            return robust.run(first, self.name());
        }
        let (best, lower_bound_s) = self.solve(graph, &problem, env)?;
        best.into_plan(graph, &problem, lower_bound_s, self.name())
    }
}

impl Dip {
    /// The best solution within the budget, and a lower bound in seconds.
    pub(super) fn solve(
        self,
        graph: &TaskGraph,
        problem: &Problem,
        env: &Environment<'_>,
    ) -> Result<(Solution, f64), ScheduleError> {
        let start = Instant::now();
        let first = first(graph, problem, env, start)?;
        let found = Search::new(problem, env, first, start)?.run(graph)?;
        let Found { best, lower_bound_s, .. } = found;
        Ok((best, lower_bound_s))
    }
}

/// The best classical order.
fn first(
    graph: &TaskGraph,
    problem: &Problem,
    env: &Environment<'_>,
    start: Instant,
) -> Result<Solution, ScheduleError> {
    let mut targets = vec![one_f_one_b::target_order(problem)];
    if problem.n <= MAX_TASKS_FOR_ALL_TARGETS {
        targets.push(interleaved::target_order(problem, &|_| true));
        targets.push(gpipe::target_order(problem));
        targets.push(optimus::target_order(graph, problem));
        targets.extend(zero_bubble::target_orders(problem));
    }
    targets.extend(wave::target_orders(problem));
    let late = || match env.budget {
        Budget::Time(limit) => start.elapsed().as_secs_f64() > SHARE * limit.0,
        Budget::Iterations(_) => false,
    };
    realise(problem, &targets, || late() || env.cancelled())
}
