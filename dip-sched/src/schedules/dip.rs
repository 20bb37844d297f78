//! The searched schedule: from the best classical and regular orders, tabu search on order and memory strategies together.

use std::time::Instant;

use dip_core::{Budget, Environment, Plan, Schedule, ScheduleError, TaskGraph};

use super::{gpipe, interleaved, one_f_one_b, optimus, zero_bubble};
use crate::ordering::realise;
use crate::problem::{Problem, Solution};
use crate::search::Search;

/// Tasks up to which every classical schedule is a start; beyond, realising them takes longer than the search needs to pass
/// them.
const MOST_WISHES: usize = 6000;

/// Part of a budget in time after which no more classical schedules are tried.
const SHARE: f64 = 0.1;

/// Dynamic interleaving: a search for the order and the memory strategies of one batch (paper section 2).
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
        let (best, bound) = self.solve(graph, &problem, env)?;
        best.into_plan(graph, &problem, bound, self.name())
    }
}

impl Dip {
    /// The best order and strategies found within the budget, and the lower bound.
    pub(super) fn solve(
        self,
        graph: &TaskGraph,
        problem: &Problem,
        env: &Environment<'_>,
    ) -> Result<(Solution, f64), ScheduleError> {
        let start = Instant::now();
        let mut wishes = vec![one_f_one_b::wish(problem)];
        if problem.n <= MOST_WISHES {
            wishes.push(interleaved::wish(problem, &|_, _| true));
            wishes.push(gpipe::wish(problem));
            wishes.push(optimus::wish(graph, problem));
            wishes.extend(zero_bubble::wishes(problem));
        }
        let late = || match env.budget {
            Budget::Time(limit) => start.elapsed().as_secs_f64() > SHARE * limit.0,
            Budget::Iterations(_) => false,
        };
        let first = realise(problem, &wishes, || late() || env.cancelled())?;
        let search = Search::new(problem, env, (first, start))?.after_previous(graph);
        let bound = search.bound();
        Ok((search.run()?, bound))
    }
}
