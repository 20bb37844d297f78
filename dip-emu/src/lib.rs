//! SEMU, the step emulator: what stages cost, and what a plan does in virtual time.
//!
//! ```text
//! ModelSpec + ClusterSpec -> CostModel -> (dip-core: task graph, dip-sched: plan) -> VirtualExecutor -> Trace -> reports
//! ```
//!
//! | implementation | of | from |
//! |---|---|---|
//! | [`AnalyticCost`] | [`CostModel`](dip_core::CostModel) | operators, the data sheet and fitted factors |
//! | [`MeasuredCost`] | [`CostModel`](dip_core::CostModel) | times measured by the trainer on this machine |
//! | [`VirtualExecutor`] | [`Executor`](dip_core::Executor) | clocks that advance by the durations of the plan |
//!
//! Beside them: [`sample()`] makes batch metadata, [`fit`] and [`fit_profile`] the factors of a cluster from measured
//! operators or layers, [`model_flops`] what a batch takes, [`fsdp()`] a step without a pipeline, [`memory()`] the memory timeline of a trace, and [`report`] a
//! table, a page and a trace for Perfetto.
//!
//! | trait | you give | it lets you |
//! |---|---|---|
//! | [`OperatorRule`] | the latency of some operators | put measured kernels in the place of the formula |

pub mod analytic;
pub mod calibrate;
pub mod dag;
pub mod execute;
pub mod flops;
pub mod fsdp;
pub mod layer;
pub mod measured;
pub mod memory;
pub mod ops;
mod part;
pub mod report;
mod reuse;
pub mod sample;
pub mod strategy;

pub use analytic::AnalyticCost;
pub use calibrate::{
    Calibration, FitError, KindError, Measurement, Residual, fit, fit_profile, with_measured_peaks,
};
pub use execute::{LinkModel, VirtualExecutor};
pub use flops::{model_flops, utilisation};
pub use fsdp::{FsdpStep, fsdp};
pub use measured::MeasuredCost;
pub use memory::{MemoryCurve, memory};
pub use ops::{Operator, OperatorKind, OperatorRule, Pass};
pub use sample::{sample, sweep};

use dip_core::ChunkQuery;

/// Weights of a chunk: its layers, and the ends of its module where it has them.
pub(crate) fn chunk_parameters(chunk: &ChunkQuery<'_>) -> u64 {
    let parts = chunk.model.parameters(chunk.module);
    let first = if chunk.is_first() { parts.first } else { 0 };
    let last = if chunk.is_last() { parts.last } else { 0 };
    parts.layer * chunk.layers.len() as u64 + first + last
}
