//! A schedule: every rank runs its tasks in the order of their numbers, which is topological.

use dip::plan::{Environment, Plan, Schedule, ScheduleError, TaskGraph, lower_bound};

use crate::uses::Uses;

pub struct InOrder(pub Uses);

impl Schedule for InOrder {
    fn name(&self) -> &str {
        "in-order"
    }

    fn plan(&self, graph: &TaskGraph, _: &Environment<'_>) -> Result<Plan, ScheduleError> {
        self.0.add("schedule");
        let mut order = vec![Vec::new(); graph.ranks as usize];
        for task in &graph.tasks {
            order[task.rank.index()].push(task.id);
        }
        Plan::new(graph.clone(), self.name(), order, lower_bound(graph)?)
            .map_err(|source| ScheduleError::InvalidOrder { schedule: self.name().into(), source })
    }
}
