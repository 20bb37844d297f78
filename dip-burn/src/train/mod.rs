//! Training runs: configuration, data, the loop, evaluation, checkpoints and metrics.
//!
//! | trait | you give | it lets you |
//! |---|---|---|
//! | [`BatchLoader`] | batches with their metadata | train on your own data |
//! | [`Evaluator`] | a loss, captions or samples | evaluate in your own way |
//! | [`MetricSink`] | what to do with a report | show or store the metrics of a run |

mod agreement;
mod assignment;
mod config;
mod data;
mod early_stop;
mod error;
mod evaluator;
mod load;
mod lock;
mod loss_scale;
mod metrics;
mod report;
#[cfg(feature = "schema")]
pub mod schema;
mod state;
mod stop;
mod throughput;
mod trained;
mod trainer;

pub use crate::inference::Inference;
pub use assignment::Assign;
pub use config::{
    CheckpointConfig, DataConfig, Device, EvaluationConfig, LoraConfig, MetricsConfig,
    MixtureConfig, OnError, Packing, PartitionMethod, PipelineConfig, RunConfig, SequenceConfig,
    WeightsConfig,
};
pub use data::{
    BatchContent, BatchLoader, CaptionEvaluator, ClipEvaluator, DataSurvey, HeldOutPicture,
    LoadedBatch, MutedDocument, PendingContent, RunData, SampleCount, SelectMicrobatches,
    SurveyedDocument, clip_size, index_requests,
};
pub use early_stop::EarlyStop;
pub use error::TrainError;
pub use evaluator::{EvaluationError, Evaluator};
pub use load::{microbatch_padding, microbatch_patches};
pub use lock::{LockError, OutputLock};
pub use loss_scale::LossScale;
pub use metrics::{
    BatchLoad, HeldOutLoss, JsonLines, LoadFigures, MetricSink, Prometheus, RunSummarizer,
    RunSummary, RunTotals, SampleFiles, SinkError, StageFigures, SummaryFile, TensorBoard,
    TraceFiles, write_samples,
};
pub use report::{Caption, Evaluation, IterationReport, SampledClip};
pub use state::{RunFacts, RunState};
pub use stop::StopRequest;
pub use throughput::{Throughput, resident_bytes};
pub use trained::{TrainedInit, TrainedModel};
pub use trainer::{Resumed, Trainer, TrainerInit};
