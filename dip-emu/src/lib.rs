//! SEMU, the step emulator: what stages cost, and how long a plan takes in virtual time.
//!
//! ```text
//! ModelSpec + ClusterSpec -> CostModel -> (dip-core: task graph, dip-sched: plan) -> VirtualExecutor -> Trace -> reports
//! ```
//!
//! | type | implements | from |
//! |---|---|---|
//! | [`AnalyticCost`] | [`CostModel`](dip_core::CostModel) | operators, the data sheet of a device and fitted factors |
//! | [`MeasuredCost`] | [`CostModel`](dip_core::CostModel) | times that the trainer measured on this machine |
//! | [`VirtualExecutor`] | [`Executor`](dip_core::Executor) | clocks that advance by the durations of the plan |
//! | [`NoiseJudge`] | [`PlanJudge`](dip_core::PlanJudge) | samples of noise on the times of stages |
//!
//! | function | returns |
//! |---|---|
//! | [`sample()`], [`sweep`] | metadata of batches like those of the paper |
//! | [`fit`], [`fit_profile`] | a cluster whose factors fit measured operators or layers |
//! | [`model_flops`], [`utilisation`] | the model FLOPs of a batch, and the MFU |
//! | [`step_figures`] | what replicas and optimiser add to a plan, and the tokens and FLOPs of its step |
//! | [`fsdp()`] | a training step without a pipeline, to compare with |
//! | [`noise_study`] | the times of a plan whose stages do not take their planned times |
//! | [`memory()`] | the memory of each rank over time |
//! | [`report`] | a table, a page or a Perfetto trace |
//!
//! | trait | you give | it lets you |
//! |---|---|---|
//! | [`ModalityOperators`] | the operators of a modality | price a modality of your own |
//! | [`OperatorRule`] | the latency of some operators | replace the formula by measured kernels |

mod calibrate;
mod cost;
mod execute;
mod flops;
mod judge;
mod modality;
mod operators;
pub mod report;
mod sample;
mod step;
mod study;

pub use calibrate::{
    Calibration, ErrorSummary, FitError, FittedTime, Measurement, fit, fit_profile,
    with_measured_peaks,
};
pub use cost::{AnalyticCost, FsdpStep, GradientOverlap, MeasuredCost, Replicas, fsdp};
pub use execute::{LinkModel, Noise, VirtualExecutor};
pub use flops::{model_flops, utilisation};
pub use judge::NoiseJudge;
pub use modality::{ModalityOperators, PartBuilder, Product};
pub use operators::{Operator, OperatorKind, OperatorRule, Pass, TensorId};
pub use report::{MemoryCurve, memory};
pub use sample::{sample, sweep};
pub use step::{step_figures, trained_tokens};
pub use study::{NoiseStudy, RankWaiting, noise_study};

/// The Rust of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
