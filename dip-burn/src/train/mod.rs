//! Training runs: configuration, checkpoints, evaluation and the loop.

pub mod checkpoint;
mod config;
mod report;

pub use config::{
    CheckpointConfig, DataConfig, EvaluationConfig, OptimizerConfig, PipelineConfig, RunConfig,
};
pub use report::{Caption, Evaluation, IterationReport, Observer};
