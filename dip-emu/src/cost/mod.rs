//! What stages cost: two cost models, and a step without a pipeline to compare with.

mod analytic;
mod fsdp;
mod measured;

pub use analytic::{AnalyticCost, GradientOverlap, Replicas};
pub use fsdp::{FsdpStep, fsdp};
pub use measured::MeasuredCost;
