//! Training runs: configuration, data, the loop, evaluation, checkpoints and metrics.

mod adapt;
pub mod checkpoint;
mod config;
mod data;
mod early_stop;
mod error;
mod loss_scale;
mod metrics;
mod nodes;
mod replicas;
mod report;
mod samples;
mod scalars;
mod tensorboard;
mod throughput;
mod trainer;

pub use adapt::{LoraConfig, SequenceConfig, WeightsConfig};
pub use config::{
    CheckpointConfig, Cut, DataConfig, Device, EvaluationConfig, MetricsConfig, Packing,
    PipelineConfig, RunConfig,
};
pub use data::{
    CaptionJudge, Content, FedBatch, Feed, HeldOut, Judge, Microbatches, RunData, SampleJudge,
    Wanted,
};
pub use early_stop::EarlyStop;
pub use error::TrainError;
pub use loss_scale::LossScale;
pub use metrics::Metrics;
pub use replicas::Deal;
pub use report::{Caption, Evaluation, IterationReport, Observer, Sample};
pub use samples::write as write_samples;
pub use throughput::{Throughput, resident_bytes};
pub use trainer::{Trainer, TrainerInit};
