//! Every schedule, one per file, and the registry of their names.
//!
//! A classical schedule describes a target order for every rank. [`realise`] follows it as far as dependencies and memory allow,
//! so that classical schedules work on any graph.

mod dip;
mod dynapipe;
mod exact;
mod gpipe;
mod interleaved;
mod one_f_one_b;
mod optimus;
mod registry;
mod reordered;
mod units;
mod wave;
mod zero_bubble;

pub use dip::Dip;
pub use dynapipe::DynaPipe;
pub use exact::Exact;
pub use gpipe::GPipe;
pub use interleaved::Interleaved;
pub use one_f_one_b::OneFOneB;
pub use optimus::Optimus;
pub use registry::{schedule_by_name, schedule_names, schedules};
pub use reordered::Reordered;
pub use wave::{DualPipeV, VHalf, VMin, Zbv};
pub use zero_bubble::ZeroBubble;

use std::time::Instant;

use dip_core::{
    Environment, Plan, ScheduleError, Seconds, TaskGraph, TaskId, Timeline, TimelineError,
};

use crate::bounds::lower_bound_of;
use crate::ordering::realise;
use crate::problem::{Order, Problem};

/// Plans an order of your own, one list a rank: follows it as far as dependencies and memory allow, under the fastest memory
/// strategies that fit, as every classical schedule does.
///
/// # Errors
/// [`ScheduleError::InvalidOrder`] if the lists do not have every task once, on its rank. [`ScheduleError::Infeasible`] if not even the
/// smallest strategies fit.
pub fn follow_order(
    schedule: &str,
    graph: &TaskGraph,
    order: &[Vec<TaskId>],
    env: &Environment<'_>,
) -> Result<Plan, ScheduleError> {
    // An order that deadlocks is followed as far as it goes.
    match Timeline::evaluate(graph, order) {
        Ok(_) | Err(TimelineError::Deadlock { .. }) => {}
        Err(source) => {
            return Err(ScheduleError::InvalidOrder { schedule: schedule.into(), source });
        }
    }
    let numbers = |list: &Vec<TaskId>| list.iter().map(|task| task.0).collect();
    plan_target_orders(schedule, graph, env, |_| vec![order.iter().map(numbers).collect()])
}

/// Plans a classical schedule.
fn plan_target_orders(
    schedule: &str,
    graph: &TaskGraph,
    env: &Environment<'_>,
    target_orders: impl Fn(&Problem) -> Vec<Order>,
) -> Result<Plan, ScheduleError> {
    let start = Instant::now();
    let problem = Problem::new(graph, schedule)?;
    let targets = target_orders(&problem);
    plan_orders(schedule, graph, env, Started { start, problem, targets })
}

/// A schedule with its target orders, and when it started.
struct Started {
    start: Instant,
    problem: Problem,
    targets: Vec<Order>,
}

/// Plans target orders: realises them and keeps the shortest result.
fn plan_orders(
    schedule: &str,
    graph: &TaskGraph,
    env: &Environment<'_>,
    Started { start, problem, targets }: Started,
) -> Result<Plan, ScheduleError> {
    let solution = realise(&problem, &targets, || false)?;
    let plan = solution.into_plan(graph, &problem, lower_bound_of(&problem), schedule)?;
    report(env, start, &plan);
    Ok(plan)
}

/// Reports a plan that was found without a search.
fn report(env: &Environment<'_>, start: Instant, plan: &Plan) {
    if let Some(progress) = env.progress {
        let elapsed = Seconds(start.elapsed().as_secs_f64());
        progress.improved(elapsed, 0, plan.predicted.makespan_s);
    }
}
