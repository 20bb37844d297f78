//! Partitioner, schedules, search and asynchronous planner: from a model and a batch to a plan.
//!
//! ```text
//! ModelSpec, P, CostModel -> Partitioner -> Partition          before training
//! Partition, BatchMeta    -> split_batch -> BatchSplit         each batch
//! TaskGraph               -> Schedule    -> Plan               each batch, ahead of time by the Planner
//! ```
//!
//! | to | use |
//! |---|---|
//! | place layers on ranks | [`Partitioner`], [`validate_partition`] |
//! | cut a model for the batches of a run | [`CutSearch`] |
//! | cut a batch | [`split_batch`] |
//! | order the stages of a batch | [`schedule_by_name`], or a schedule's type, such as [`Dip`] |
//! | know how far from optimal a plan can be | [`lower_bound`], which is in every plan |
//! | compare whole training systems | [`systems`] |
//! | plan ahead while training runs | [`BatchPlanner`], or [`Planner`] for graphs of your own |
//!
//! Inside, a graph becomes flat arrays (`problem`). A sequence that fits in memory is found first (`sequence`); with it as
//! witness no schedule can deadlock (`reserve`). The classical schedules wish for an order and have it realised (`realise`);
//! `dip` runs priorities through dual-queue interleaving (`interleave`) and improves the orders by tabu search (`search`); `exact`
//! branches over all orders of a small graph (`branch`). Proven bounds stand in `bounds`.

mod bounds;
mod ordering;
mod partition;
mod placement;
mod planning;
mod problem;
mod schedules;
mod search;
pub mod systems;

pub use bounds::lower_bound;
pub use partition::{PartitionError, Partitioner, split_batch, validate_partition};
pub use placement::{CutError, CutSearch};
pub use planning::{
    BatchPlanner, Loads, PlanInputs, Planned, Planner, PlannerConfig, PlannerStats,
    balance_microbatches, memory_need, rank_loads,
};
pub use schedules::{
    Dip, Exact, GPipe, Interleaved, OneFOneB, Optimus, Reordered, ZeroBubble, descriptions, names,
    schedule_by_name,
};
