//! `run.toml`: everything that defines a training run.

use std::path::PathBuf;
use std::sync::Arc;

use dip_core::{FieldError, ModelSpec, Seconds, SpecError};
use serde::{Deserialize, Serialize};

use super::{LoraConfig, SequenceConfig, WeightsConfig};
use crate::data::{BestFit, FirstFit, PackingRule};
use crate::model::Precision;
use crate::runtime::OptimizerConfig;

/// Most microbatches of one iteration.
const MAX_MICROBATCHES: u32 = 4096;
/// Most tokens of one iteration.
const MAX_TOKENS_PER_ITERATION: u64 = 1 << 40;
/// Seconds of video for each clip of a microbatch, where a run says nothing else: 16 for 8 clips, as MovieGen packs them.
const SECONDS_PER_CLIP: f64 = 2.0;

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Name in reports.
    pub name: String,
    /// A model preset, or the path of a model TOML, of a `config.json` of Hugging Face, or of a folder with one.
    pub model: String,
    /// Iterations of the whole run.
    pub iterations: u64,
    /// Seed of weights, data and search.
    #[serde(default)]
    pub seed: u64,
    /// Folder of checkpoints, profile and metrics.
    pub output: PathBuf,
    /// Weights to begin with; drawn from the seed where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsConfig>,
    /// Adapters that are trained in the place of weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// Sizes of a packed sequence, in the place of those of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<SequenceConfig>,
    /// Ranks and schedule.
    #[serde(default)]
    pub pipeline: PipelineConfig,
    /// What is trained on.
    #[serde(default)]
    pub data: DataConfig,
    /// Optimiser and learning rate.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// Checkpoints.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// Held-out loss and captions.
    #[serde(default)]
    pub evaluation: EvaluationConfig,
    /// What is written beside `metrics.jsonl`.
    #[serde(default)]
    pub metrics: MetricsConfig,
}

/// What the ranks compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// Threads of this machine.
    #[default]
    Cpu,
    /// CUDA devices, one a rank, shared where there are fewer.
    Cuda,
    /// The default GPU with Vulkan, Metal or DirectX, shared by all ranks.
    Wgpu,
    /// The default AMD device, shared by all ranks.
    Rocm,
}

/// Ranks, schedule and search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineConfig {
    /// What the ranks compute on.
    pub device: Device,
    /// Pipeline ranks, each a thread with a device of its own.
    pub ranks: u32,
    /// Replicas of the pipeline, each with ranks of its own; they share the microbatches of a batch.
    pub replicas: u32,
    /// Compute threads of a rank on CPU.
    pub threads_per_rank: usize,
    /// What the layers compute in; weights and optimiser stay f32. CPUs compute 16 bits slower than f32.
    pub precision: Precision,
    /// The schedule, by name.
    pub schedule: String,
    /// How the cut of the model over the ranks is found.
    pub cut: Cut,
    /// Budget of the search in iterations: reproducible. 0 for a budget in time: the last iteration's.
    pub search_iterations: u64,
    /// Whether weight gradients are tasks of their own; absent for the schedules that place them freely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_split: Option<bool>,
    /// Memory of one rank for weights, optimiser and activations, in bytes; absent for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
}

impl PipelineConfig {
    /// Devices that the ranks of all replicas take.
    pub fn devices(&self) -> u32 {
        self.ranks.saturating_mul(self.replicas)
    }
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            ranks: 2,
            replicas: 1,
            threads_per_rank: 1,
            precision: Precision::F32,
            schedule: "dip".into(),
            cut: Cut::default(),
            search_iterations: 20,
            weight_split: None,
            memory_limit_bytes: None,
        }
    }
}

/// How the cut of a model over the ranks is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Layers go wherever plans of the first batches become shortest. Schedules that do not search keep their rule.
    #[default]
    Searched,
    /// Layers go where the fastest of a few rules puts them: chunks of about equally many layers, or runs of about equal latency.
    Rule,
}

/// What is trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// WebDataset shards (files or folders of them); none for the built-in drawn scenes, or moving shapes for video.
    pub shards: Vec<PathBuf>,
    /// Shards held out for evaluation; none for the built-in held-out scenes, or no evaluation on own data.
    pub held_out: Vec<PathBuf>,
    /// A Hugging Face `tokenizer.json`; absent for the built-in byte-level one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Microbatches of one iteration; absent for those of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microbatches: Option<u32>,
    /// Instead of a number of microbatches: as many as it takes to reach these tokens, padding not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_iteration: Option<u64>,
    /// Which documents share a sequence.
    pub packing: Packing,
    /// Seconds of video in one microbatch, and so in one clip: longer ones are cut. Absent for two for each of the model's
    /// `max_clips`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<f64>,
    /// Share of clips that are trained without their caption, which guidance needs.
    pub caption_dropout: f64,
}

impl DataConfig {
    /// The longest video of one microbatch of `model`.
    pub fn video_of_microbatch(&self, model: &ModelSpec) -> Seconds {
        let by_clips = SECONDS_PER_CLIP * f64::from(model.max_clips.max(1));
        Seconds(self.max_seconds.unwrap_or(by_clips))
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            shards: Vec::new(),
            held_out: Vec::new(),
            tokenizer: None,
            microbatches: None,
            tokens_per_iteration: None,
            packing: Packing::default(),
            max_seconds: None,
            caption_dropout: 0.1,
        }
    }
}

/// Which of the waiting documents follows in a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// The oldest that fits.
    #[default]
    FirstFit,
    /// The one that fills most of what is left.
    BestFit,
}

impl Packing {
    /// The rule itself.
    pub fn rule(self) -> Arc<dyn PackingRule> {
        match self {
            Self::FirstFit => Arc::new(FirstFit),
            Self::BestFit => Arc::new(BestFit),
        }
    }
}

/// When checkpoints are written, and how many stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Iterations between two checkpoints; the last iteration always writes one. 0 for that one alone.
    pub every: u64,
    /// Newest checkpoints that are kept.
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 100, keep: 2 }
    }
}

/// When the model is evaluated, and on how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Iterations between two evaluations; the first and the last iteration always have one. 0 for those alone.
    pub every: u64,
    /// Held-out pictures whose caption loss is measured.
    pub pictures: usize,
    /// Held-out pictures that are captioned at the end.
    pub captions: usize,
    /// Most tokens of a generated caption.
    pub max_caption_tokens: usize,
    /// Held-out clips whose flow-matching loss is measured, at fixed noise and steps.
    pub clips: usize,
    /// Clips that are sampled for held-out captions at the end.
    pub samples: usize,
    /// Length of a sampled clip, in seconds.
    pub sample_seconds: f64,
    /// Steps from noise to a clip.
    pub sample_steps: u32,
    /// How far samples are led beyond the caption's own velocity: 1 for that velocity, more for stronger agreement.
    pub guidance: f64,
    /// Evaluations in a row without a lower held-out loss after which the run ends; 0 for never.
    pub patience: u64,
}

/// What is written beside `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// TensorBoard event files in the folder `tensorboard` of the output.
    pub tensorboard: bool,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { tensorboard: true }
    }
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            every: 100,
            pictures: 64,
            captions: 12,
            max_caption_tokens: 80,
            clips: 64,
            samples: 12,
            sample_seconds: 2.0,
            sample_steps: 32,
            guidance: 3.0,
            patience: 0,
        }
    }
}

impl RunConfig {
    /// Reads a run from TOML and validates it.
    ///
    /// # Errors
    /// [`SpecError`] names the field, its value, the limit and the remedy.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        let config: Self = toml::from_str(text).map_err(|e| SpecError::Syntax(e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`FieldError`] for the first field outside its limit.
    pub fn validate(&self) -> Result<(), FieldError> {
        let within = |path: &str, value: f64, low: f64, high: f64, remedy: &str| {
            FieldError::check_range(path, value, low..=high, remedy)
        };
        let p = &self.pipeline;
        within("iterations", self.iterations as f64, 1.0, 1e12, "give the length of the run")?;
        within("pipeline.ranks", f64::from(p.ranks), 1.0, 1024.0, "one rank a core or device")?;
        let threads = p.threads_per_rank as f64;
        let most = 1024.0 / f64::from(p.ranks);
        within("pipeline.replicas", f64::from(p.replicas), 1.0, most, "ranks * replicas threads")?;
        within("pipeline.threads_per_rank", threads, 1.0, 1024.0, "divide the cores by the ranks")?;
        let microbatches = f64::from(self.data.microbatches.unwrap_or(1));
        let most = f64::from(MAX_MICROBATCHES);
        within("data.microbatches", microbatches, 1.0, most, "a few for each rank")?;
        self.validate_budget()?;
        let o = &self.optimizer;
        within("optimizer.learning_rate", o.learning_rate, 0.0, 1e3, "try 1e-3")?;
        within("optimizer.final_share", o.final_share, 0.0, 1.0, "try 0.1")?;
        within("optimizer.decay_share", o.decay_share, 0.0, 1.0, "try 0.2")?;
        within("optimizer.weight_decay", f64::from(o.weight_decay), 0.0, 1e3, "try 0.05")?;
        within("optimizer.beta_1", f64::from(o.beta_1), 0.0, 0.999_999, "try 0.9")?;
        within("optimizer.beta_2", f64::from(o.beta_2), 0.0, 0.999_999, "try 0.95")?;
        within("optimizer.clip_norm", o.clip_norm, 0.0, 1e12, "try 1, or 0 for no clipping")?;
        within("optimizer.ema_decay", o.ema_decay, 0.0, 0.999_999_9, "try 0.999, or 0 for none")?;
        let d = &self.data;
        within("data.max_seconds", d.max_seconds.unwrap_or(1.0), 1e-3, 1e6, "try 16")?;
        within("data.caption_dropout", d.caption_dropout, 0.0, 1.0, "try 0.1")?;
        within("checkpoint.keep", self.checkpoint.keep as f64, 1.0, 1e6, "keep at least one")?;
        let e = &self.evaluation;
        within("evaluation.pictures", e.pictures as f64, 0.0, 1e6, "try 64")?;
        within("evaluation.captions", e.captions as f64, 0.0, 1e6, "try 12")?;
        let tokens = e.max_caption_tokens as f64;
        within("evaluation.max_caption_tokens", tokens, 1.0, 65_536.0, "try 80")?;
        within("evaluation.clips", e.clips as f64, 0.0, 1e6, "try 64")?;
        within("evaluation.samples", e.samples as f64, 0.0, 1e4, "try 12")?;
        within("evaluation.sample_seconds", e.sample_seconds, 1e-3, 1e6, "try 2")?;
        within("evaluation.sample_steps", f64::from(e.sample_steps), 1.0, 1e5, "try 32")?;
        within("evaluation.guidance", e.guidance, 0.0, 1e3, "try 3, or 1 for none")
    }
}

impl RunConfig {
    /// A batch is sized by microbatches or by tokens.
    fn validate_budget(&self) -> Result<(), FieldError> {
        let Some(tokens) = self.data.tokens_per_iteration else { return Ok(()) };
        let path = "data.tokens_per_iteration";
        if self.data.microbatches.is_some() {
            let limit = "absent where data.microbatches is set";
            return Err(FieldError::new(path, tokens, limit, "keep one of the two"));
        }
        let remedy = "a few sequences for each rank";
        FieldError::check_range(path, tokens, 1..=MAX_TOKENS_PER_ITERATION, remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "name = 'a'\nmodel = 'vlm-tiny'\niterations = 10\noutput = 'runs/a'\n";

    #[test]
    fn a_small_run_has_sensible_defaults() {
        let run = RunConfig::from_toml(SMALL).unwrap();
        assert_eq!((run.pipeline.ranks, run.pipeline.schedule.as_str()), (2, "dip"));
    }

    #[test]
    fn errors_name_the_field_and_the_limit() {
        let bad = |more: &str| RunConfig::from_toml(&format!("{SMALL}{more}")).unwrap_err();
        let text = bad("[pipeline]\nranks = 0\n").to_string();
        assert!(text.contains("pipeline.ranks is 0") && text.contains("1 to 1024"), "{text}");
        let text = bad("[pipeline]\nranks = 4\nreplicas = 300\n").to_string();
        assert!(text.contains("pipeline.replicas is 300") && text.contains("1 to 256"), "{text}");
        let text = bad("[data]\ntokens_per_iteration = 0\n").to_string();
        assert!(text.contains("data.tokens_per_iteration is 0"), "{text}");
        let text = bad("[data]\ntokens_per_iteration = 9\nmicrobatches = 2\n").to_string();
        assert!(text.contains("absent where data.microbatches is set"), "{text}");
        assert!(bad("[optimizer]\nschedule = 'step'\n").to_string().contains("wsd"));
        assert!(bad("[pipeline]\nrank = 2\n").to_string().contains("unknown field `rank`"));
        assert!(bad("[optimizer]\nlearning_rate = nan\n").to_string().contains("learning_rate"));
    }
}
