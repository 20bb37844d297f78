//! Schedules of a wave: two stages on every rank, which microbatches pass from the first rank to the last and back.
//!
//! | file | schedule |
//! |---|---|
//! | `zbv` | ZB-V: no bubble in the steady state, the memory of 1F1B |
//! | `building_block` | V-Half and V-Min: half and a third of that memory |
//! | `dualpipe_v` | DualPipeV: DualPipe cut in half |
//!
//! Each gives the steps (`step`) of every rank on an ideal wave; [`Wave`] maps them to the tasks of a graph (`stages`).

mod building_block;
mod dualpipe_v;
mod stages;
mod step;
mod zbv;

pub use building_block::{VHalf, VMin};
pub use dualpipe_v::DualPipeV;
pub use zbv::Zbv;

use std::time::Instant;

use dip_core::{Environment, Placement, Plan, Route, ScheduleError, TaskGraph};

use super::{Started, plan_orders};
use crate::problem::{Order, Problem};
use stages::Wave;
use step::Step;

/// The placement of all schedules of a wave.
const PLACEMENT: Placement = Placement::Contiguous { runs_per_rank: 2, route: Route::Wave };

/// The steps of the ranks of an ideal wave, by position, for a number of ranks and of microbatches.
type Steps = fn(usize, usize) -> Result<Vec<Vec<Step>>, String>;

/// The steps of all wave schedules, which are starts of the search.
pub(super) fn target_orders(problem: &Problem) -> Vec<Order> {
    let Ok(wave) = Wave::new(problem) else { return Vec::new() };
    let all: [Steps; 4] =
        [zbv::steps, building_block::half_steps, building_block::min_steps, dualpipe_v::steps];
    let orders = all.iter().filter_map(|steps| target_order(problem, &wave, *steps).ok());
    orders.collect()
}

fn target_order(problem: &Problem, wave: &Wave, steps: Steps) -> Result<Order, String> {
    Ok(wave.order(problem, &steps(problem.ranks, problem.microbatches())?))
}

/// Plans a wave schedule.
fn plan(
    schedule: &str,
    graph: &TaskGraph,
    env: &Environment<'_>,
    steps: Steps,
) -> Result<Plan, ScheduleError> {
    let start = Instant::now();
    let problem = Problem::new(graph, schedule)?;
    let order = Wave::new(&problem).and_then(|wave| target_order(&problem, &wave, steps));
    let order = order.map_err(|reason| ScheduleError::NotApplicable {
        schedule: schedule.into(),
        reason: format!("{reason}; use zero_bubble or dip instead"),
    })?;
    plan_orders(schedule, graph, env, Started { start, problem, targets: vec![order] })
}
