//! `[checkpoint]`, `[evaluation]` and `[metrics]`: the output of a run.

use dip_core::FieldError;
use serde::{Deserialize, Serialize};

/// Interval and number of checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Iterations between two checkpoints; 0 for none. The last iteration always writes a checkpoint.
    pub every: u64,
    /// Newest checkpoints that are kept.
    pub keep: usize,
    /// What happens if a checkpoint cannot be written, such as on a full disk. The last one of a run must be written.
    pub on_error: OnError,
}

/// What a run does if a checkpoint cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// It ends with an error.
    #[default]
    Stop,
    /// It warns, and tries again at the next checkpoint.
    Continue,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 100, keep: 2, on_error: OnError::Stop }
    }
}

impl CheckpointConfig {
    /// Checks every field.
    pub(super) fn validate(&self) -> Result<(), FieldError> {
        FieldError::check_range("checkpoint.keep", self.keep, 1..=1_000_000, "keep at least one")
    }
}

/// Interval and amount of evaluations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Iterations between two evaluations; 0 for none. The model is always evaluated before the first iteration and after the last.
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
    /// Shift of these steps towards the noise; 1 for even steps. Absent for the model's own shift, or 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_shift: Option<f64>,
    /// Scale of classifier-free guidance: 1 for the velocity of the caption alone, more for stronger agreement with the caption.
    pub guidance: f64,
    /// The run ends after this many evaluations in a row without a lower held-out loss; 0 for never.
    pub patience: u64,
}

impl EvaluationConfig {
    /// Checks every field.
    pub(super) fn validate(&self) -> Result<(), FieldError> {
        let counts = [
            ("evaluation.pictures", self.pictures, 0..=1_000_000, "try 64"),
            ("evaluation.captions", self.captions, 0..=1_000_000, "try 12"),
            ("evaluation.max_caption_tokens", self.max_caption_tokens, 1..=65_536, "try 80"),
            ("evaluation.clips", self.clips, 0..=1_000_000, "try 64"),
            ("evaluation.samples", self.samples, 0..=10_000, "try 12"),
            ("evaluation.sample_steps", self.sample_steps as usize, 1..=100_000, "try 32"),
        ];
        for (path, value, range, remedy) in counts {
            FieldError::check_range(path, value, range, remedy)?;
        }
        let seconds = self.sample_seconds;
        FieldError::check_range("evaluation.sample_seconds", seconds, 1e-3..=1e6, "try 2")?;
        let shift = self.sample_shift.unwrap_or(1.0);
        FieldError::check_range("evaluation.sample_shift", shift, 1e-3..=1e3, "try 3")?;
        let remedy = "try 3, or 1 for none";
        FieldError::check_range("evaluation.guidance", self.guidance, 0.0..=1e3, remedy)
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
            sample_shift: None,
            guidance: 3.0,
            patience: 0,
        }
    }
}

/// Metrics that are written beside `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// TensorBoard event files in the folder `tensorboard` of the output.
    pub tensorboard: bool,
    /// Iterations whose measured timelines are written to the folder `traces` of the output, from the first to the one before the
    /// last: `[100, 110]`. `dip report` draws them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<(u64, u64)>,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { tensorboard: true, trace: None }
    }
}

impl MetricsConfig {
    /// True if the timeline of this iteration is written.
    pub fn traces(&self, iteration: u64) -> bool {
        self.trace.is_some_and(|(from, to)| (from..to).contains(&iteration))
    }
}
