//! `[optimizer]`: update rule and learning rate.

use dip_core::FieldError;
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
    /// Length of the decay of `wsd`, as a share of the run.
    pub decay_share: f64,
    /// Iterations of linear warm-up.
    pub warmup_iterations: u64,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f32,
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Largest norm of all gradients together; larger gradients are scaled down to it. 0 for no clipping.
    pub clip_norm: f64,
    /// Decay of a moving average of the weights, which evaluation and sampling use; 0 for none.
    pub ema_decay: f64,
    /// True if each replica keeps only the moments of its share of the parameters (ZeRO-1).
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

impl OptimizerConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`FieldError`] for the first field outside its limit.
    pub fn validate(&self) -> Result<(), FieldError> {
        let fields = [
            ("optimizer.learning_rate", self.learning_rate, 1e3, "try 1e-3"),
            ("optimizer.final_share", self.final_share, 1.0, "try 0.1"),
            ("optimizer.decay_share", self.decay_share, 1.0, "try 0.2"),
            ("optimizer.weight_decay", f64::from(self.weight_decay), 1e3, "try 0.05"),
            ("optimizer.beta_1", f64::from(self.beta_1), 0.999_999, "try 0.9"),
            ("optimizer.beta_2", f64::from(self.beta_2), 0.999_999, "try 0.95"),
            ("optimizer.clip_norm", self.clip_norm, 1e12, "try 1, or 0 for no clipping"),
            ("optimizer.ema_decay", self.ema_decay, 0.999_999_9, "try 0.999, or 0 for none"),
        ];
        for (path, value, max, remedy) in fields {
            FieldError::check_range(path, value, 0.0..=max, remedy)?;
        }
        Ok(())
    }
}
