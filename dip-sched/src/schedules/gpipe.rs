//! GPipe: all forwards, then all backwards.

use dip_core::{Environment, Placement, Plan, Route, Schedule, ScheduleError, TaskGraph, TaskKind};

use super::plan_target_orders;
use crate::problem::{Order, Problem};

/// All forwards of a batch, then all backwards, microbatch by microbatch.
#[derive(Debug, Clone, Copy, Default)]
pub struct GPipe;

impl Schedule for GPipe {
    fn name(&self) -> &str {
        "gpipe"
    }

    fn description(&self) -> &str {
        "all forwards, then all backwards"
    }

    fn placement(&self) -> Placement {
        Placement::Contiguous { runs_per_rank: 1, route: Route::Loop }
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        plan_target_orders(self.name(), graph, env, |problem| vec![target_order(problem)])
    }
}

/// The target order of every rank.
pub(super) fn target_order(problem: &Problem) -> Order {
    let forwards_first = |tasks: &Vec<u32>| {
        let is_forward = |&t: &u32| problem.kind[t as usize] == TaskKind::Forward;
        let (mut forwards, others): (Vec<u32>, Vec<u32>) =
            tasks.iter().partition(|t| is_forward(t));
        forwards.extend(others);
        forwards
    };
    problem.by_rank.iter().map(forwards_first).collect()
}
