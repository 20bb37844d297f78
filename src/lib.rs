//! dip: pure-Rust training of large multimodal models with dynamic interleaved pipeline parallelism.
//!
//! ```text
//! model + cluster + batch metadata -> partition -> cost -> task graph -> search -> check -> emulate | train -> report
//!                                     sched        emu     core          sched     core     emu       burn    emu
//! ```
//!
//! | module | for |
//! |---|---|
//! | [`plan`] | models, clusters and batches; partitions, schedules and plans |
//! | [`emulate`] | costs of stages, sampled batches, plans in virtual time, reports |
//! | [`tune`](mod@tune) | the size of a run: degrees of parallelism and layouts, by emulation |
//! | [`train`](mod@train) | training runs on Burn; needs the feature `train` |
//! | [`prelude`] | what programs that plan usually need |
//!
//! Plan a batch in ten lines:
//!
//! ```
//! use std::sync::Arc;
//!
//! use dip::prelude::*;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let model = presets::model("vlm-s").ok_or("no such model")?;
//!     let cluster = presets::cluster("h800").ok_or("no such cluster")?;
//!     let cost = Arc::new(AnalyticCost::new(&model, &cluster));
//!     let planning = Planning::new(&model, &cluster, cost)?.for_schedule(&Dip)?;
//!     let batch = &sample(&model, 1, 0, None)[0];
//!     let plan = planning.plan(batch, &Dip)?;
//!     assert!(check_plan(&plan).is_empty());
//!     println!("{} at most {:.1} % from optimal", plan.predicted.makespan_s, 100.0 * plan.gap());
//!     Ok(())
//! }
//! ```
//!
//! Plug in your own parts. The crate in `tests/outside` has a small one of each:
//!
//! | trait | you give | it lets you |
//! |---|---|---|
//! | [`plan::Schedule`] | a plan for a task graph | invent a schedule |
//! | [`plan::CostModel`] | seconds and bytes of a stage | plan for your hardware or your model |
//! | [`plan::PlanSource`] | a plan for each batch | plan elsewhere, or replay plans |
//! | [`plan::Modality`] | instances, tokens and parameters of a module | plan models with another modality |
//! | [`emulate::ModalityOperators`] | the operators of its layers | know what such a module costs |
//! | [`emulate::Executor`] | a trace for a plan | run plans elsewhere |
//! | `train::model::TrainableModality` | forward and backward of its layers | train such a module |
//! | `train::data::DataSource` | documents or captioned videos | train on your own data |
//! | `train::data::PackingRule` | the next document of a sequence | choose which documents share a sequence |
//! | `train::BatchLoader` | batches with their metadata | replace the data pipeline |
//! | `train::Evaluator` | a loss, captions or samples | evaluate in your own way |
//! | `train::MetricSink` | what to do with a report | show or store the metrics of a run |
//! | `train::runtime::LinkFactory` | links between ranks | move activations over your own transport |
//! | `train::runtime::CollectiveFactory` | sums over replicas | reduce gradients in your own way |
//!
//! A run takes them by the methods of `train::Run`.

pub mod emulate;
#[cfg(feature = "train")]
mod init;
pub mod plan;
#[cfg(feature = "train")]
mod run;
#[cfg(feature = "train")]
pub mod train;
pub mod tune;

/// The usual imports of programs that plan.
pub mod prelude {
    pub use crate::emulate::{AnalyticCost, MeasuredCost, VirtualExecutor, sample};
    pub use crate::plan::{
        BatchMeta, BatchPlanner, BatchSplit, Budget, Bytes, ClusterSpec, CostModel, Dip,
        Environment, MicrobatchMeta, ModelSpec, Partition, Partitioner, Plan, Planning, Schedule,
        ScheduleError, Seconds, TaskGraph, check_plan, follow_order, lower_bound, presets,
        schedule_by_name,
    };
}

/// The Rust of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So does the Rust of the page about extensions.
#[cfg(doctest)]
#[doc = include_str!("../docs/extend.md")]
struct Extend;
