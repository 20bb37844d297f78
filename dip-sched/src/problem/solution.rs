//! A solution: an order on every rank and a memory strategy for every pair. It completes to a plan.

use dip_core::{Plan, ScheduleError, Seconds, TaskGraph, TaskId, TimelineError};

use super::{Choice, Order, Problem};

/// An order on every rank and a choice of strategies.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Solution {
    /// The tasks of each rank in execution order.
    pub(crate) order: Order,
    /// The strategy of each pair.
    pub(crate) choice: Choice,
    /// Seconds until the last task ends.
    pub(crate) makespan: f64,
}

impl Solution {
    /// Completes the solution to a plan: writes the chosen strategies into the tasks and drops the candidate lists.
    ///
    /// # Errors
    /// [`ScheduleError::InvalidOrder`] if the order has no timeline, which would be a defect of the schedule.
    pub(crate) fn into_plan(
        self,
        graph: &TaskGraph,
        problem: &Problem,
        lower_bound_s: f64,
        schedule: &str,
    ) -> Result<Plan, ScheduleError> {
        let mut graph = graph.clone();
        for (pair, &choice) in problem.pairs.iter().zip(&self.choice) {
            let candidates = std::mem::take(&mut graph.tasks[pair.forward.index()].candidates);
            let Some(chosen) = candidates.get(choice as usize) else { continue };
            let forward = &mut graph.tasks[pair.forward.index()];
            forward.duration_s = chosen.forward_s;
            forward.activation_bytes = chosen.activation_bytes;
            forward.strategy = chosen.strategy.clone();
            if let Some(b) = pair.backward {
                graph.tasks[b.index()].duration_s = chosen.backward_s;
                graph.tasks[b.index()].strategy = chosen.strategy.clone();
            }
            if let Some(w) = pair.weight {
                graph.tasks[w.index()].strategy = chosen.strategy.clone();
            }
        }
        let order = self.order.iter().map(|l| l.iter().map(|&t| TaskId(t)).collect()).collect();
        let invalid = |source: TimelineError| ScheduleError::InvalidOrder {
            schedule: schedule.to_owned(),
            source,
        };
        let mut plan = Plan::new(graph, schedule, order, Seconds::ZERO).map_err(invalid)?;
        // Rounding may lift the bound above the makespan it bounds.
        plan.lower_bound_s = Seconds(lower_bound_s).min(plan.predicted.makespan_s);
        Ok(plan)
    }
}
