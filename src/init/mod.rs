//! Proposes a training run for a model and data, after looking at both.
//!
//! ```text
//! model, data -> survey of samples -> sizes of a sequence -> what fits the memory -> RunConfig -> run.toml
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `sizes` | sequence, pictures and microbatches that suit the samples |
//! | `memory` | the bytes of the fullest rank, by the analytic costs |
//! | `settings` | learning rate, warm-up and length by kind of run |
//! | `text` | the run as commented TOML |

mod memory;
mod settings;
mod sizes;
mod text;

pub use memory::{Fit, MemoryUse};
pub use settings::RunKind;

use std::path::PathBuf;

use dip_burn::data::DataError;
use dip_burn::model::Precision;
use dip_burn::train::{
    DataConfig, DataSurvey, Device, PipelineConfig, RunConfig, TrainError, WeightsConfig,
};
use dip_core::{Bytes, FieldError, ModelSpec, SpecError};

use crate::run::RunError;
use sizes::Sizes;

/// What a run is proposed for.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// Name of the run.
    pub name: String,
    /// The model as a run names it: a preset, a file, or a folder of Hugging Face.
    pub model: String,
    /// The folder of its weights; `None` to draw them.
    pub weights: Option<PathBuf>,
    /// Training data; empty for drawn data.
    pub shards: Vec<PathBuf>,
    /// Held-out data.
    pub held_out: Vec<PathBuf>,
    /// The folder of the pictures that JSON files name; `None` for the folder of each file.
    pub images: Option<PathBuf>,
    /// Pipeline ranks.
    pub ranks: u32,
    /// The device of the ranks.
    pub device: Device,
    /// Memory of one rank; `None` if it is unknown.
    pub memory: Option<Bytes>,
    /// True if the run must keep this memory. Otherwise the limit is only written if recomputation is needed.
    pub keeps_memory: bool,
}

/// A proposed run.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The run.
    pub config: RunConfig,
    /// Its model, with the changes of the run.
    pub model: ModelSpec,
    /// What the data holds.
    pub survey: DataSurvey,
    /// What is trained.
    pub kind: RunKind,
    /// Memory of the fullest rank.
    pub memory: MemoryUse,
    /// How the run fits the memory.
    pub fit: Fit,
    /// Documents in a sequence, or clips in a microbatch, on average.
    pub documents_per_sequence: f64,
}

impl Proposal {
    /// Proposes a run of `spec`, the model that the request names, as its file describes it.
    ///
    /// # Errors
    /// [`RunError`] names the file, field or memory, and the remedy.
    pub fn new(request: &RunRequest, spec: &ModelSpec) -> Result<Self, RunError> {
        let base = base(request);
        let whole = adapted(&base, spec)?;
        let survey = survey(&base, &whole)?;
        let mut needed = None;
        for kind in RunKind::of(request, spec) {
            for sizes in Sizes::candidates(&whole, &survey, kind.is_published()) {
                let mut config = base.clone();
                kind.apply(&mut config, &whole);
                sizes.apply(&mut config, spec)?;
                let model = adapted(&config, spec)?;
                let memory = MemoryUse::of(&model, &config)?;
                let fit = memory.fit(request.memory);
                if fit == Fit::No {
                    needed = Some(memory.least_total());
                    continue;
                }
                if request.keeps_memory || fit == Fit::Recomputed {
                    config.pipeline.memory_limit_bytes = request.memory.map(|limit| limit.0);
                }
                let documents_per_sequence = sizes.documents_per_sequence;
                settings::set_length(&mut config, &model, &survey, documents_per_sequence);
                config.validate().map_err(SpecError::from)?;
                return Ok(Self {
                    config,
                    model,
                    survey,
                    kind,
                    memory,
                    fit,
                    documents_per_sequence,
                });
            }
        }
        Err(too_little_memory(request, needed.unwrap_or_default()).into())
    }

    /// Documents of an iteration, on average.
    pub fn documents_per_iteration(&self) -> f64 {
        let microbatches = self.config.data.microbatches.unwrap_or(self.model.microbatches);
        self.documents_per_sequence * f64::from(microbatches)
    }

    /// The run as commented TOML, which reads back as [`Self::config`].
    pub fn to_toml(&self) -> String {
        text::of(self)
    }
}

/// The error of a model that does not fit, whatever is left out. `needed` is the least memory of a rank.
fn too_little_memory(request: &RunRequest, needed: Bytes) -> SpecError {
    let limit = format!("at least {} ({needed})", needed.0);
    let remedy = "give more --ranks, or more --memory for each of them, or choose a smaller model";
    let memory = request.memory.unwrap_or(Bytes::UNLIMITED);
    FieldError::new("the memory of a rank", format!("{} ({memory})", memory.0), limit, remedy)
        .into()
}

/// The run before its sizes are known.
fn base(request: &RunRequest) -> RunConfig {
    let weights = request.weights.clone();
    let is_cpu = request.device == Device::Cpu;
    RunConfig {
        name: request.name.clone(),
        model: request.model.clone(),
        iterations: 1,
        seed: 0,
        output: PathBuf::from("runs").join(&request.name),
        weights: weights.map(|from| WeightsConfig { from, ..WeightsConfig::default() }),
        lora: None,
        sequence: None,
        pipeline: PipelineConfig {
            ranks: request.ranks,
            device: request.device,
            precision: if is_cpu { Precision::F32 } else { Precision::Bf16 },
            ..PipelineConfig::default()
        },
        data: DataConfig {
            shards: request.shards.clone(),
            held_out: request.held_out.clone(),
            images: request.images.clone(),
            ..DataConfig::default()
        },
        optimizer: Default::default(),
        checkpoint: Default::default(),
        evaluation: Default::default(),
        metrics: Default::default(),
    }
}

/// The model as `config` trains it.
fn adapted(config: &RunConfig, spec: &ModelSpec) -> Result<ModelSpec, RunError> {
    let mut model = spec.clone();
    config.read_image_processor(&mut model).map_err(TrainError::from)?;
    config.adapt(&mut model)?;
    Ok(model)
}

fn survey(config: &RunConfig, model: &ModelSpec) -> Result<DataSurvey, RunError> {
    let read = || -> Result<DataSurvey, DataError> {
        // The output folder is not there yet.
        let data = DataConfig { indexes: None, ..config.data_of_model()? };
        DataSurvey::read(model, &data, config.seed)
    };
    Ok(read().map_err(TrainError::from)?)
}
