//! The trait of judges of plans.

use crate::plan::plan::Plan;
use crate::spec::Seconds;

/// Judges plans by what they take in practice, where stages do not take their planned times. A search asks it which of several plans
/// that are about as long to keep.
///
/// A judge has a list of scenarios, the same for all plans of a graph, so that plans can be compared on few of them.
/// dip-emu implements it with noise on the times of stages.
pub trait PlanJudge: Send + Sync {
    /// The number of scenarios; at least 1.
    fn scenarios(&self) -> u32;

    /// The mean makespan of `plan` in the first `scenarios` scenarios. Infinite if the plan cannot be run.
    fn expected(&self, plan: &Plan, scenarios: u32) -> Seconds;

    /// Standard deviation of the time of a stage, relative to its planned time.
    fn deviation(&self) -> f64;
}
