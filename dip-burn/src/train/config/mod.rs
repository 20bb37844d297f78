//! `run.toml`: everything that defines a training run.

mod adapt;
mod data;
mod output;
mod paths;
mod pipeline;
mod published;

pub use adapt::{LoraConfig, SequenceConfig, WeightsConfig};
pub use data::{DataConfig, MixtureConfig, Packing};
pub use output::{CheckpointConfig, EvaluationConfig, MetricsConfig, OnError};
pub use pipeline::{Device, PartitionMethod, PipelineConfig};

use std::path::PathBuf;

use dip_core::{FieldError, SpecError};
use serde::{Deserialize, Serialize};

use crate::runtime::OptimizerConfig;

/// Most iterations of a run.
const MAX_ITERATIONS: u64 = 1_000_000_000_000;

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Folder of checkpoints, profile and metrics. Like all paths of a run file, it is relative to the folder of the file
    /// ([`RunConfig::resolve`]).
    pub output: PathBuf,
    /// Initial weights; drawn from the seed if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsConfig>,
    /// Adapters that are trained in place of weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// Sizes of a packed sequence, in place of the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<SequenceConfig>,
    /// Ranks and schedule.
    #[serde(default)]
    pub pipeline: PipelineConfig,
    /// Training data.
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
    /// Metrics that are written beside `metrics.jsonl`.
    #[serde(default)]
    pub metrics: MetricsConfig,
}

impl RunConfig {
    /// Reads a run from TOML and validates it.
    ///
    /// # Errors
    /// [`SpecError`] names the field, its value, the limit and the remedy.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        let config: Self = dip_core::from_toml(text)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`FieldError`] for the first field outside its limit.
    pub fn validate(&self) -> Result<(), FieldError> {
        let range = 1..=MAX_ITERATIONS;
        let remedy = "give the length of the run";
        FieldError::check_range("iterations", self.iterations, range, remedy)?;
        self.pipeline.validate()?;
        self.data.validate()?;
        self.optimizer.validate()?;
        self.checkpoint.validate()?;
        self.evaluation.validate()
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
    fn the_earlier_name_of_the_partition_method_is_read() {
        for name in ["partition", "cut"] {
            let run = RunConfig::from_toml(&format!("{SMALL}[pipeline]\n{name} = 'rule'\n"));
            assert_eq!(run.unwrap().pipeline.partition, PartitionMethod::Rule);
        }
    }

    #[test]
    fn errors_name_the_field_and_the_limit() {
        let bad = |more: &str| RunConfig::from_toml(&format!("{SMALL}{more}")).unwrap_err();
        let text = bad("[pipeline]\nranks = 0\n").to_string();
        assert!(text.contains("pipeline.ranks is 0") && text.contains("1 to 1024"), "{text}");
        let text = bad("[pipeline]\nranks = 4\nreplicas = 20000\n").to_string();
        let parts = ["pipeline.replicas is 20000", "1 to 16384"];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        let text = bad("[data]\ntokens_per_iteration = 0\n").to_string();
        assert!(text.contains("data.tokens_per_iteration is 0"), "{text}");
        let text = bad("[data]\ntokens_per_iteration = 9\nmicrobatches = 2\n").to_string();
        assert!(text.contains("absent where data.microbatches is set"), "{text}");
        assert!(bad("[optimizer]\nschedule = 'step'\n").to_string().contains("wsd"));
        assert!(bad("[pipeline]\nrank = 2\n").to_string().contains("unknown field `rank`"));
        assert!(bad("[optimizer]\nlearning_rate = nan\n").to_string().contains("learning_rate"));
    }
}
