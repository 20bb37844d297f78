//! The step of a plan: its parts, tokens per second and utilisation.

use dip::plan::{Parallelism, Seconds, StepFigures};
use schemars::JsonSchema;
use serde::Serialize;

/// The figures of a step.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StepDocument {
    /// The whole step.
    pub seconds: Seconds,
    pub pipeline_s: Seconds,
    /// The part of the sum of gradients over replicas that ends after the pipeline.
    pub reduction_s: Seconds,
    /// The gather of new weights from all replicas.
    pub gather_s: Seconds,
    /// The optimiser.
    pub update_s: Seconds,
    /// Of all devices.
    pub tokens_per_s: f64,
    pub tokens_per_s_per_device: f64,
    /// Model FLOPs utilisation.
    pub mfu: f64,
    /// Devices that are used.
    pub devices: u64,
    /// Devices that the cluster has, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_devices: Option<u64>,
    /// Degrees of data, tensor and pipeline parallelism.
    pub parallel: Parallelism,
}

impl StepDocument {
    /// The figures of a step whose pipeline takes `pipeline`.
    pub fn new(step: &StepFigures, pipeline: Seconds, cluster_devices: Option<u64>) -> Self {
        let seconds = step.seconds(pipeline);
        let per_device = step.tokens_per_s(seconds);
        Self {
            seconds,
            pipeline_s: pipeline,
            reduction_s: step.reduction_s,
            gather_s: step.gather_s,
            update_s: step.update_s,
            tokens_per_s: per_device * step.devices() as f64,
            tokens_per_s_per_device: per_device,
            mfu: step.utilisation(seconds),
            devices: step.devices(),
            cluster_devices,
            parallel: step.parallel,
        }
    }

    /// Two lines: the parts of the step, and what it trains.
    pub fn lines(&self) -> String {
        let Self { seconds, pipeline_s, reduction_s, gather_s, update_s, parallel, .. } = self;
        let of = self.cluster_devices.map_or_else(String::new, |devices| format!(" of {devices}"));
        let exchange = if parallel.data > 1 {
            let both = *reduction_s + *gather_s;
            format!(
                ", exchange between replicas {both} (gradients {reduction_s}, weights {gather_s})"
            )
        } else {
            String::new()
        };
        format!(
            "step {seconds}: pipeline {pipeline_s}{exchange}, optimiser {update_s}\n\
             {:.0} tokens/s, {:.0} a device; MFU {:.1} %; uses {}{of} devices: data {}, tensor {}, pipeline {}\n",
            self.tokens_per_s,
            self.tokens_per_s_per_device,
            100.0 * self.mfu,
            self.devices,
            parallel.data,
            parallel.tensor,
            parallel.pipeline
        )
    }
}
