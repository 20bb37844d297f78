//! Every schedule, one a file. The classical ones wish for an order on every rank and have it realised within dependencies
//! and memory, so that they work on any graph.

mod dip;
mod exact;
mod gpipe;
mod interleaved;
mod one_f_one_b;
mod optimus;
mod registry;
mod reordered;
mod units;
mod zero_bubble;

pub use dip::Dip;
pub use exact::Exact;
pub use gpipe::GPipe;
pub use interleaved::Interleaved;
pub use one_f_one_b::OneFOneB;
pub use optimus::Optimus;
pub use registry::{descriptions, names, schedule_by_name};
pub use reordered::Reordered;
pub use zero_bubble::ZeroBubble;

use dip_core::{Environment, Plan, ScheduleError, TaskGraph};

use crate::bounds::lower_bound_of;
use crate::ordering::realise;
use crate::problem::Problem;

/// The best of the orders that a classical schedule wishes for.
fn plan_wishes(
    name: &str,
    graph: &TaskGraph,
    env: &Environment<'_>,
    wishes: impl Fn(&Problem) -> Vec<Vec<Vec<u32>>>,
) -> Result<Plan, ScheduleError> {
    let start = std::time::Instant::now();
    let problem = Problem::new(graph, name)?;
    let solution = realise(&problem, &wishes(&problem), || false)?;
    let plan = solution.into_plan(graph, &problem, lower_bound_of(&problem), name)?;
    if let Some(progress) = env.progress {
        let elapsed = dip_core::Seconds(start.elapsed().as_secs_f64());
        progress.improved(elapsed, 0, plan.predicted.makespan_s);
    }
    Ok(plan)
}
