//! Training runs: [`Run`] assembles a run, and you can replace every part of it.
//!
//! ```no_run
//! use dip::plan::OneFOneB;
//! use dip::prelude::*;
//! use dip::train::{Run, RunConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = RunConfig::from_toml(&std::fs::read_to_string("run.toml")?)?;
//! let mut model = presets::model(&config.model).ok_or("no such model")?;
//! config.adapt(&mut model)?;
//! let mut training = Run::new(config, model).with_schedule(OneFOneB).start()?;
//! training.run(&mut ())?;
//! # Ok(())
//! # }
//! ```

pub use crate::init::{Fit, MemoryUse, Proposal, RunKind, RunRequest};
pub use crate::run::{OnBackend, Outlook, Run, RunError, Trained, TrainedRun, Training, on_device};
#[cfg(feature = "schema")]
pub use dip_burn::train::schema;
pub use dip_burn::train::{
    Assign, BatchContent, BatchLoad, BatchLoader, Caption, CaptionEvaluator, CheckpointConfig,
    ClipEvaluator, DataConfig, DataSurvey, Device, EarlyStop, Evaluation, EvaluationConfig,
    EvaluationError, Evaluator, HeldOutLoss, HeldOutPicture, Inference, IterationReport, JsonLines,
    LoadFigures, LoadedBatch, LockError, LoraConfig, LossScale, MetricSink, MetricsConfig,
    MixtureConfig, MutedDocument, OnError, OutputLock, Packing, PartitionMethod, PendingContent,
    PipelineConfig, Prometheus, Resumed, RunConfig, RunData, RunFacts, RunState, RunSummarizer,
    RunSummary, RunTotals, SampleCount, SampleFiles, SampledClip, SelectMicrobatches,
    SequenceConfig, SinkError, StageFigures, StopRequest, SummaryFile, SurveyedDocument,
    TensorBoard, Throughput, TraceFiles, TrainError, TrainedInit, TrainedModel, Trainer,
    TrainerInit, WeightsConfig, clip_size, index_requests, microbatch_padding, microbatch_patches,
    resident_bytes, write_samples,
};
pub use dip_burn::{
    Backend, Batch, Clip, ClipGrid, ClipSize, Features, Image, ImageLayout, ImagePlace, Microbatch,
    PositionRule, Prompt, View, ViewGrid, backend, checkpoint, data, inference, measure, model,
    next_position, params, runtime, stage, text_positions, weights,
};
pub use dip_core::{Link, LinkError, Message, Stage, StageError};
