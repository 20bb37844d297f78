//! Training runs: configuration, data, the loop, evaluation, checkpoints and metrics.

pub mod checkpoint;
mod config;
mod data;
mod early_stop;
mod loss_scale;
mod metrics;
mod rate;
mod replicas;
mod report;
mod scalars;
mod tensorboard;
mod throughput;
mod trainer;

pub use config::{
    CheckpointConfig, DataConfig, Device, EvaluationConfig, MetricsConfig, OptimizerConfig,
    PipelineConfig, RunConfig,
};
pub use data::{HeldOut, RunData, assemble};
pub use early_stop::EarlyStop;
pub use loss_scale::LossScale;
pub use metrics::Metrics;
pub use rate::RateSchedule;
pub use replicas::Deal;
pub use report::{Caption, Evaluation, IterationReport, Observer};
pub use throughput::{Throughput, resident_bytes};
pub use trainer::{TrainError, Trainer, TrainerInit};
