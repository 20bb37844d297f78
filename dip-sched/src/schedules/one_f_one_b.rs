//! 1F1B: each rank holds as many microbatches in flight as there are ranks from it to the end of the pipeline.

use dip_core::{Environment, Placement, Plan, Route, Schedule, ScheduleError, TaskGraph};

use super::plan_target_orders;
use super::units::{Units, rank_positions, units};
use crate::problem::{Order, Problem};

/// One forward, one backward (PipeDream-flush): warm-up, steady alternation, cool-down.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneFOneB;

impl Schedule for OneFOneB {
    fn name(&self) -> &str {
        "1f1b"
    }

    fn description(&self) -> &str {
        "one forward, one backward, one stage per rank"
    }

    fn placement(&self) -> Placement {
        Placement::Contiguous { runs_per_rank: 1, route: Route::Loop }
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        plan_target_orders(self.name(), graph, env, |problem| vec![target_order(problem)])
    }
}

/// The target order of every rank; weight tasks follow their backward.
pub(super) fn target_order(problem: &Problem) -> Order {
    with_weight_delay(problem, |_| 0)
}

/// 1F1B that delays the weight tasks of a rank by `delay(position)` microbatches. `position` counts the ranks before it.
pub(super) fn with_weight_delay(problem: &Problem, delay: impl Fn(usize) -> usize) -> Order {
    let positions = rank_positions(problem);
    let ranks = units(problem, false).into_iter().zip(positions);
    ranks
        .map(|(units, position)| rank_order(&units, problem.ranks - position, delay(position)))
        .collect()
}

fn rank_order(units: &Units, in_flight: usize, delay: usize) -> Vec<u32> {
    let mut list = Vec::new();
    let (Some(forwards), Some(backwards), Some(weights)) =
        (units.forwards.first(), units.backwards.first(), units.weights.first())
    else {
        return list;
    };
    let warm_up = in_flight.min(units.microbatches);
    list.extend(forwards[..warm_up].iter().flatten());
    for (k, backward) in backwards.iter().enumerate() {
        list.extend(backward);
        if let Some(weight) = k.checked_sub(delay).and_then(|k| weights.get(k)) {
            list.extend(weight);
        }
        if let Some(forward) = forwards.get(k + warm_up) {
            list.extend(forward);
        }
    }
    list.extend(weights[units.microbatches.saturating_sub(delay)..].iter().flatten());
    list
}
