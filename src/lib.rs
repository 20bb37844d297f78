//! dip: pure-Rust training of large multimodal models with dynamic interleaved pipeline parallelism.
//!
//! ```text
//! model + cluster + batch metadata -> partition -> cost -> task graph -> search -> check -> emulate | train -> report
//!                                     sched        emu     core          sched     core     emu       burn    emu
//! ```
//!
//! | trait | you give | it lets you |
//! |---|---|---|
//! | [`Schedule`](core::Schedule) | a plan for a task graph | invent a schedule |
//! | [`CostModel`](core::CostModel) | seconds and bytes of a stage | plan for your hardware or your model |
//! | [`Stage`](core::Stage) | forward and backward of a model chunk | train with kernels of your own |
//! | [`Executor`](core::Executor) | a trace for a plan | run plans elsewhere |
//!
//! This crate only re-exports; [`run`] joins the crates to a training run.

pub use dip_core as core;
pub use dip_emu as emu;
pub use dip_sched as sched;

#[cfg(feature = "train")]
pub use dip_burn as burn;

#[cfg(feature = "train")]
pub mod run;

/// What programs that plan usually need.
pub mod prelude {
    pub use dip_core::{
        BatchMeta, BatchSplit, Budget, Bytes, ClusterSpec, CostModel, Environment, MicrobatchMeta,
        ModelSpec, Partition, Plan, Schedule, ScheduleError, Seconds, TaskGraph, check_plan,
        presets,
    };
    pub use dip_emu::{AnalyticCost, MeasuredCost};
    pub use dip_sched::{BatchPlanner, Dip, Partitioner, Planning, lower_bound, schedule_by_name};
}
