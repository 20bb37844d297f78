//! Settings of the optimiser.

use serde::{Deserialize, Serialize};

use super::RateSchedule;

/// How weights are updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// AdamW for all parameters.
    #[default]
    Adamw,
    /// Muon for the matrices of the hidden layers, AdamW for embeddings, heads and vectors.
    Muon,
}

/// The optimiser and its learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The update rule.
    pub algorithm: Algorithm,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// The learning rate after the warm-up.
    pub schedule: RateSchedule,
    /// Learning rate at the end of a cosine or decay, as a share of the peak.
    pub final_share: f64,
    /// Share of the run that the decay of `wsd` takes.
    pub decay_share: f64,
    /// Iterations of linear warm-up.
    pub warmup_iterations: u64,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f32,
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Largest norm of all gradients together; larger ones are scaled down. 0 for no clipping.
    pub clip_norm: f64,
    /// Decay of a moving average of the weights, which is what is evaluated and sampled from. 0 for none.
    pub ema_decay: f64,
    /// Whether replicas share the optimiser state: each keeps the moments of its share of the parameters (ZeRO-1).
    pub shard: bool,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Adamw,
            learning_rate: 1e-3,
            schedule: RateSchedule::default(),
            final_share: 0.1,
            decay_share: 0.2,
            warmup_iterations: 20,
            weight_decay: 0.05,
            beta_1: 0.9,
            beta_2: 0.95,
            clip_norm: 1.0,
            ema_decay: 0.0,
            shard: false,
        }
    }
}
