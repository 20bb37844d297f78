//! The results of a comparison, as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use dip::plan::{BatchMeta, Bytes, ClusterSpec, ModelSpec, Seconds};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::Figures;

/// The results of all models.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Comparison {
    pub cluster: String,
    pub seed: u64,
    pub models: Vec<ModelResult>,
    /// The data of each figure.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<&'static str, serde_json::Value>,
}

/// The results of all systems on one model.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelResult {
    pub model: String,
    /// Degrees of data, tensor and pipeline parallelism.
    pub parallel: [u32; 3],
    pub microbatches: usize,
    pub systems: Vec<SystemResult>,
}

/// The results of one system on one model.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SystemResult {
    pub system: String,
    /// The choice before training, such as segments and sub-microbatches.
    pub choice: String,
    /// Seconds that the choice took.
    pub deploy_s: Seconds,
    pub records: Vec<Record>,
    /// Why there are no records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// One iteration of one system.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Record {
    pub iteration: u64,
    /// The whole step: pipeline, exchange between replicas, optimiser.
    pub seconds: Seconds,
    pub pipeline_s: Seconds,
    /// Gradients and weights of the replicas, after the pipeline.
    pub exchange_s: Seconds,
    pub bubble_ratio: f64,
    pub mfu: f64,
    /// Tokens per second and device.
    pub tokens_per_s: f64,
    /// Peak memory of the rank with the highest peak.
    pub peak_bytes: Bytes,
    /// Distance from the proven bound of the task graph, relative to the bound; absent without a pipeline.
    pub gap: Option<f64>,
    /// Under noise on the times of stages; absent without noise, and for systems without a pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noisy: Option<Noisy>,
    pub search_s: Seconds,
}

/// The mean of a plan over samples of noise.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Noisy {
    pub pipeline_s: Seconds,
    /// Distance from the bound without noise, relative to the bound.
    pub over_bound: f64,
}

/// Mean and standard deviation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
pub struct Spread {
    pub mean: f64,
    pub deviation: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let n = values.clone().count();
        if n == 0 {
            return Self::default();
        }
        let mean = values.clone().sum::<f64>() / n as f64;
        let square = values.map(|v| (v - mean) * (v - mean)).sum::<f64>();
        Self { mean, deviation: (square / n.saturating_sub(1).max(1) as f64).sqrt() }
    }
}

impl Comparison {
    pub fn new(cluster: &ClusterSpec, seed: u64) -> Self {
        Self { cluster: cluster.name.clone(), seed, models: Vec::new(), figures: BTreeMap::new() }
    }
}

impl Figures for Comparison {
    const SCHEMA: &'static str = "dip.compare/v1";
}

impl ModelResult {
    pub fn new(model: &ModelSpec, batches: &[BatchMeta]) -> Self {
        let p = model.parallel;
        Self {
            model: model.name.clone(),
            parallel: [p.data, p.tensor, p.pipeline],
            microbatches: batches.first().map_or(0, |b| b.microbatches.len()),
            systems: Vec::new(),
        }
    }

    /// The reference of the comparison: `dip`, or else the last system.
    pub fn reference(&self) -> Option<&SystemResult> {
        let done = || self.systems.iter().filter(|s| s.failure.is_none());
        done().find(|s| s.system == "dip").or_else(|| done().next_back())
    }
}

impl SystemResult {
    pub fn new(system: &str, choice: &str, deploy: Duration) -> Self {
        Self {
            system: system.into(),
            choice: choice.into(),
            deploy_s: Seconds(deploy.as_secs_f64()),
            records: Vec::new(),
            failure: None,
        }
    }

    pub fn failed(system: &str, failure: String) -> Self {
        let mut result = Self::new(system, "", Duration::ZERO);
        result.failure = Some(failure);
        result
    }

    pub fn spread(&self, of: impl Fn(&Record) -> f64 + Clone) -> Spread {
        Spread::of(self.records.iter().map(of))
    }

    pub fn seconds(&self) -> Spread {
        self.spread(|r| r.seconds.0)
    }

    /// The mean of the step under noise; `None` without noise.
    pub fn noisy_seconds(&self) -> Option<f64> {
        let seconds = |r: &Record| Some(r.seconds.0 - r.pipeline_s.0 + r.noisy?.pipeline_s.0);
        let all: Option<Vec<f64>> = self.records.iter().map(seconds).collect();
        all.filter(|all| !all.is_empty()).map(|all| all.iter().sum::<f64>() / all.len() as f64)
    }

    /// Relative throughput over `other`, minus one: 0.1 is 10 % faster.
    pub fn above(&self, other: &Self) -> f64 {
        other.seconds().mean / self.seconds().mean - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_the_sample_deviation() {
        let spread = Spread::of([1.0, 2.0, 3.0].into_iter());
        assert_eq!((spread.mean, spread.deviation), (2.0, 1.0));
        assert_eq!(Spread::of([4.0].into_iter()), Spread { mean: 4.0, deviation: 0.0 });
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
    }
}
