//! The progress of a run, which a checkpoint keeps beside its tensors.

use serde::{Deserialize, Serialize};

use super::EarlyStop;
use super::loss_scale::LossScale;

/// Everything beside tensors that a run needs to resume as if it had not stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState<S> {
    /// The run that wrote the checkpoint.
    pub run: RunFacts,
    /// Completed iterations.
    pub iteration: u64,
    /// Completed optimiser steps, for Adam's bias correction and the learning rate.
    pub optimizer_steps: u64,
    /// The best held-out loss, for early stopping.
    pub early_stop: EarlyStop,
    /// The loss scale.
    pub loss_scale: LossScale,
    /// Position in the data, with the state of its random numbers.
    pub data: S,
}

/// What a checkpoint tells about its run. Nothing depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFacts {
    /// Version of dip.
    pub version: String,
    /// Name of the run.
    pub name: String,
    /// The model, as the run names it.
    pub model: String,
    /// Seed of the run.
    pub seed: u64,
    /// Ranks of the pipeline.
    pub ranks: u32,
    /// Replicas in all processes.
    pub replicas: usize,
}
