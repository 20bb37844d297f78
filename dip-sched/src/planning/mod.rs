//! Planning the batches of a run: costs and a partition in, a plan of every batch out (paper section 4).

mod assign;
mod batch_planner;
mod loads;
mod memory_need;
mod planner;

pub use assign::{Loads, balance_microbatches};
pub use batch_planner::{BatchPlanner, PlanInputs};
pub use loads::rank_loads;
pub(crate) use loads::seconds_of_chunk;
pub use memory_need::memory_need;
pub use planner::{Planned, Planner, PlannerConfig, PlannerStats};
