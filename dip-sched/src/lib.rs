//! Partitioner, schedules, search and asynchronous planner: from a model and a batch to a plan.
//!
//! ```text
//! ModelSpec, ClusterSpec, CostModel -> Partitioner -> Planning          before training
//! Planning, sample batches          -> PlacementSearch -> Planning      before training
//! Planning, BatchMeta               -> TaskGraph -> Schedule -> Plan    each batch, ahead of training
//! ```
//!
//! | to | use |
//! |---|---|
//! | plan a batch | [`Planning`] and a schedule, such as [`Dip`] |
//! | place layers on ranks by rule | [`Partitioner`], [`validate_partition`] |
//! | place layers on ranks for the batches of a run | [`PlacementSearch`] |
//! | find a schedule by name | [`schedule_by_name`] |
//! | fit an order of your own into memory | [`follow_order`] |
//! | know how far from optimal a plan can be | [`lower_bound`]; every plan states it |
//! | plan ahead while training runs | [`BatchPlanner`], or [`Planner`] for your own graphs |
//! | assign microbatches to replicas | [`assign_microbatches`] |
//! | compare whole training systems | [`systems`] |
//!
//! | room | holds | uses |
//! |---|---|---|
//! | `problem` | a task graph as flat arrays, timelines, solutions | |
//! | `bounds` | proven lower bounds | `problem` |
//! | `ordering` | memory that cannot deadlock, target orders, dual-queue interleaving, branch and bound | `bounds` |
//! | `search` | the search of [`Dip`], one file per phase | `ordering` |
//! | `schedules` | every schedule, one file each, and their registry | `search` |
//! | `partition` | the rule-based partitioner, slices of batches | |
//! | `learning` | costs that learn from measured iterations | |
//! | `planning` | [`Planning`], the planner thread, memory need, loads of replicas | `partition`, `schedules`, `learning` |
//! | `placement` | the search for a placement | `planning` |
//! | `systems` | training systems to compare | `planning`, `schedules` |

mod bounds;
mod learning;
mod ordering;
mod partition;
mod placement;
mod planning;
mod problem;
mod schedules;
mod search;
pub mod systems;

pub use bounds::lower_bound;
pub use learning::{COSTS_SCHEMA, LearnedCosts, MeasuredPlan};
pub use partition::{PartitionError, Partitioner, split_batch, validate_partition};
pub use placement::{PlacementError, PlacementSearch, fastest_planning, routed_partitions};
pub use planning::{
    BatchPlanner, Learning, MakeJudge, MicrobatchLoads, Planned, Planner, PlannerConfig,
    PlannerStats, Planning, assign_microbatches,
};
pub use schedules::{
    Dip, DualPipeV, DynaPipe, Exact, GPipe, Interleaved, OneFOneB, Optimus, Reordered, VHalf, VMin,
    Zbv, ZeroBubble, follow_order, schedule_by_name, schedule_names, schedules,
};

/// The Rust of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
