//! The step of a run around a plan: what replicas and optimiser add to the pipeline, and how much the step trains.

use serde::Serialize;

use crate::spec::{Flops, Parallelism, Seconds};

/// What a training step has besides the stages of its plan. The plan is of one replica; every replica runs one like it.
///
/// ```
/// # use dip_core::{Flops, Parallelism, Seconds, StepFigures};
/// let step = StepFigures {
///     parallel: Parallelism { data: 2, tensor: 4, pipeline: 4 },
///     tokens: 131_072,
///     flops: Flops(16.0 * 500e12),
///     device_flops_per_s: 1000e12,
///     reduction_s: Seconds(0.2),
///     update_s: Seconds(0.1),
///     gather_s: Seconds(0.1),
/// };
/// let seconds = step.seconds(Seconds(0.6));
/// assert_eq!((step.devices(), seconds.0), (32, 1.0));
/// assert_eq!((step.utilisation(seconds), step.tokens_per_s(seconds)), (0.5, 8192.0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StepFigures {
    /// Degrees of parallelism of the run.
    pub parallel: Parallelism,
    /// Tokens that one replica trains.
    pub tokens: u64,
    /// Model FLOPs of one replica.
    pub flops: Flops,
    /// Peak arithmetic of a device, in FLOP/s.
    pub device_flops_per_s: f64,
    /// The part of the sum of gradients over replicas that ends after the pipeline.
    pub reduction_s: Seconds,
    /// The optimiser step of the slowest rank.
    pub update_s: Seconds,
    /// The gather of new weights from all replicas (ZeRO-1), on the slowest rank.
    pub gather_s: Seconds,
}

impl StepFigures {
    /// The time of a step whose pipeline takes `pipeline`.
    pub fn seconds(&self, pipeline: Seconds) -> Seconds {
        pipeline + self.exchange() + self.update_s
    }

    /// The time that replicas spend on each other after the pipeline.
    pub fn exchange(&self) -> Seconds {
        self.reduction_s + self.gather_s
    }

    /// The devices of all replicas.
    pub fn devices(&self) -> u64 {
        self.parallel.devices()
    }

    /// Tokens per second and device of a step of `seconds`; 0 if the step takes no time.
    pub fn tokens_per_s(&self, seconds: Seconds) -> f64 {
        per(self.tokens as f64, self.replica_devices() * seconds.0)
    }

    /// The model FLOPs utilisation (MFU) of a step of `seconds`; 0 if the step takes no time.
    pub fn utilisation(&self, seconds: Seconds) -> f64 {
        per(self.flops.0, self.replica_devices() * self.device_flops_per_s * seconds.0)
    }

    fn replica_devices(&self) -> f64 {
        f64::from(self.parallel.tensor) * f64::from(self.parallel.pipeline)
    }
}

fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}
