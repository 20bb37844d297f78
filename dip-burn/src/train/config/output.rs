//! `[checkpoint]`, `[evaluation]` and `[metrics]`: the output of a run.

use dip_core::FieldError;
use dip_core::hf::GenerationConfig;
use serde::{Deserialize, Serialize};

use crate::model::{Continuation, TokenChoice};

/// Most tokens of a generated caption where nothing says otherwise.
const CAPTION_TOKENS: usize = 80;

/// Interval and number of checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Iterations between two evaluations; 0 for none. The model is always evaluated before the first iteration and after the last.
    pub every: u64,
    /// Held-out pictures whose caption loss is measured.
    pub pictures: usize,
    /// Held-out pictures that are captioned at the end.
    pub captions: usize,
    /// Most tokens of a generated caption. Absent for `max_new_tokens` of the published model, and for 80 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_caption_tokens: Option<usize>,
    /// True if the tokens of captions are drawn. This field and those up to `stop_tokens` are absent for what the
    /// `generation_config.json` of the published model says; without it, the most likely token is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub do_sample: Option<bool>,
    /// Divides the logits; 0 for the most likely token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The number of the most likely tokens that may be drawn; 0 for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// The probability that the tokens that may be drawn have together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Lowers the scores of tokens that have occurred; 1 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// The tokens that end a caption. Absent for those of the published model, and for the end token of the tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_tokens: Option<Vec<u32>>,
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
    /// Most tokens of a generated caption.
    pub fn caption_tokens(&self) -> usize {
        self.max_caption_tokens.unwrap_or(CAPTION_TOKENS)
    }

    /// How captions are continued. `end` is the end token of the tokenizer.
    pub fn continuation(&self, end: u32, seed: u64) -> Continuation {
        let temperature = self.temperature.unwrap_or(1.0);
        let choice = TokenChoice {
            draws: self.do_sample.unwrap_or(false) && temperature > 0.0,
            temperature: temperature as f32,
            top_k: self.top_k.unwrap_or(0) as usize,
            top_p: self.top_p.unwrap_or(1.0) as f32,
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0) as f32,
            seed,
        };
        let stop = match &self.stop_tokens {
            Some(stop) => stop.clone(),
            None => vec![end],
        };
        Continuation { stop, max_tokens: self.caption_tokens(), choice }
    }

    /// The same with what the `generation_config.json` of a model says, where no field is set.
    pub(super) fn or_of_model(mut self, model: &GenerationConfig) -> Self {
        let GenerationConfig { eos, max_new_tokens, do_sample, temperature, .. } = model.clone();
        self.max_caption_tokens = self.max_caption_tokens.or(max_new_tokens.map(|n| n as usize));
        self.do_sample = self.do_sample.or(do_sample);
        self.temperature = self.temperature.or(temperature);
        self.top_k = self.top_k.or(model.top_k);
        self.top_p = self.top_p.or(model.top_p);
        self.repetition_penalty = self.repetition_penalty.or(model.repetition_penalty);
        self.stop_tokens = self.stop_tokens.or((!eos.is_empty()).then_some(eos));
        self
    }

    /// Checks every field.
    pub(super) fn validate(&self) -> Result<(), FieldError> {
        let counts = [
            ("evaluation.pictures", self.pictures, 0..=1_000_000, "try 64"),
            ("evaluation.captions", self.captions, 0..=1_000_000, "try 12"),
            ("evaluation.max_caption_tokens", self.caption_tokens(), 1..=65_536, "try 80"),
            ("evaluation.clips", self.clips, 0..=1_000_000, "try 64"),
            ("evaluation.samples", self.samples, 0..=10_000, "try 12"),
            ("evaluation.sample_steps", self.sample_steps as usize, 1..=100_000, "try 32"),
        ];
        for (path, value, range, remedy) in counts {
            FieldError::check_range(path, value, range, remedy)?;
        }
        let seconds = self.sample_seconds;
        FieldError::check_range("evaluation.sample_seconds", seconds, 1e-3..=1e6, "try 2")?;
        let ranges = [
            ("evaluation.temperature", self.temperature, 0.0..=1e6, "try 0.7"),
            ("evaluation.top_p", self.top_p, 0.0..=1.0, "try 0.9, or 1 for all"),
            ("evaluation.repetition_penalty", self.repetition_penalty, 1e-3..=1e3, "try 1.05"),
        ];
        for (path, value, range, remedy) in ranges {
            FieldError::check_range(path, value.unwrap_or(1.0), range, remedy)?;
        }
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
            max_caption_tokens: None,
            do_sample: None,
            temperature: None,
            top_k: None,
            top_p: None,
            repetition_penalty: None,
            stop_tokens: None,
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// TensorBoard event files in the folder `tensorboard` of the output.
    pub tensorboard: bool,
    /// `metrics.prom` in the output: the newest figures in the text format of Prometheus.
    pub prometheus: bool,
    /// Iterations whose measured timelines are written to the folder `traces` of the output, from the first to the one before the
    /// last: `[100, 110]`. `dip report` draws them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<(u64, u64)>,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { tensorboard: true, prometheus: false, trace: None }
    }
}

impl MetricsConfig {
    /// True if the timeline of this iteration is written.
    pub fn traces(&self, iteration: u64) -> bool {
        self.trace.is_some_and(|(from, to)| (from..to).contains(&iteration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_run_precede_those_of_the_model() {
        let model = r#"{"eos_token_id":[7,9],"do_sample":true,"temperature":0.5,"top_k":3,"max_new_tokens":20}"#;
        let model = GenerationConfig::read(model).unwrap();
        let own = EvaluationConfig { top_k: Some(0), ..EvaluationConfig::default() };
        let found = own.or_of_model(&model).continuation(2, 11);
        let expected =
            TokenChoice { draws: true, temperature: 0.5, seed: 11, ..Default::default() };
        assert_eq!((found.stop, found.max_tokens, found.choice), (vec![7, 9], 20, expected));
        let plain = EvaluationConfig::default().continuation(2, 0);
        assert_eq!((plain.stop, plain.max_tokens), (vec![2], 80));
        assert!(!plain.choice.draws, "greedy without a file");
        // A temperature of 0 takes the most likely token.
        let cold = EvaluationConfig { temperature: Some(0.0), ..EvaluationConfig::default() };
        assert!(!cold.or_of_model(&model).continuation(2, 0).choice.draws);
    }
}
