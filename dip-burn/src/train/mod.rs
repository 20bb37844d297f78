//! Training runs: configuration, data, the loop, evaluation, checkpoints and metrics.

pub mod checkpoint;
mod config;
mod data;
mod loss_scale;
mod metrics;
mod report;
mod trainer;

pub use config::{
    CheckpointConfig, DataConfig, Device, EvaluationConfig, OptimizerConfig, PipelineConfig,
    RunConfig,
};
pub use data::{HeldOut, RunData, assemble};
pub use loss_scale::LossScale;
pub use metrics::Metrics;
pub use report::{Caption, Evaluation, IterationReport, Observer};
pub use trainer::{TrainError, Trainer, TrainerInit};
