//! Zero bubble (ZB-H1): split weight gradients run later, where the pipeline would wait.

use dip_core::{Environment, Placement, Plan, Route, Schedule, ScheduleError, TaskGraph};

use super::one_f_one_b::{self, with_weight_delay};
use super::plan_target_orders;
use crate::problem::{Order, Problem};

/// ZB-H1: 1F1B that delays the weight tasks of a rank by one microbatch for each rank before it. Every rank then holds as many
/// microbatches as the first one does under 1F1B. On a graph without weight tasks it equals 1F1B.
#[derive(Debug, Clone, Copy, Default)]
pub struct ZeroBubble;

impl Schedule for ZeroBubble {
    fn name(&self) -> &str {
        "zero_bubble"
    }

    fn description(&self) -> &str {
        "1F1B with delayed weight gradients (ZB-H1)"
    }

    fn placement(&self) -> Placement {
        Placement::Contiguous { runs_per_rank: 1, route: Route::Loop }
    }

    fn splits_weights(&self) -> bool {
        true
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        plan_target_orders(self.name(), graph, env, target_orders)
    }
}

/// The target orders with weight tasks delayed, and without delay.
pub(super) fn target_orders(problem: &Problem) -> Vec<Order> {
    vec![with_weight_delay(problem, |position| position), one_f_one_b::target_order(problem)]
}
