//! Training runs: configuration, data, the loop, evaluation, checkpoints and metrics.

pub mod checkpoint;
mod config;
mod data;
mod metrics;
mod report;
mod samples;
mod trainer;

pub use config::{
    CheckpointConfig, DataConfig, Device, EvaluationConfig, OptimizerConfig, PipelineConfig,
    RunConfig,
};
pub use data::{
    CaptionJudge, Content, FedBatch, Feed, HeldOut, Judge, RunData, SampleJudge, assemble,
};
pub use metrics::Metrics;
pub use report::{Caption, Evaluation, IterationReport, Observer, Sample};
pub use trainer::{TrainError, Trainer, TrainerInit};
