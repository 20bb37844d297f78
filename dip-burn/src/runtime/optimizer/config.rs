//! `[optimizer]`: update rule and learning rate.

use std::collections::BTreeSet;

use dip_core::{FieldError, name_covers};
use serde::{Deserialize, Serialize};

use super::RateSchedule;

/// How weights are updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Weight of the squared logarithm of the softmax's denominator in the loss of a token (z-loss); 0 for none. The reported loss of
    /// an iteration includes it, held-out losses do not.
    pub z_loss: f64,
    /// Settings of some of the parameters. The first group that names a parameter counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParameterGroup>,
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

/// The error of a setting that names no parameter, with the parts that there are.
pub(in crate::runtime) fn no_such_part(
    path: String,
    name: &str,
    parameters: &[String],
) -> FieldError {
    let part = |parameter: &String| parameter.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let parts: BTreeSet<String> = parameters.iter().map(part).collect();
    let parts: Vec<String> = parts.into_iter().collect();
    let limit = format!(
        "a module, its tower or projector, or the beginning of a parameter: {}",
        parts.join(", ")
    );
    FieldError::new(path, format!("{name:?}"), limit, "correct the name")
}

/// Settings of some of the parameters, in place of the optimiser's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// Modules or parts of them: `vision`, `vision.tower`, `vision.projector`, `language.embed`.
    pub parameters: Vec<String>,
    /// Peak learning rate. The schedule is the same for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Decoupled weight decay, on matrices only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f32>,
}

impl ParameterGroup {
    fn validate(&self, number: usize) -> Result<(), FieldError> {
        let path = |name: &str| format!("optimizer.groups[{number}].{name}");
        if self.parameters.is_empty() {
            let limit = "at least one module, or part of one";
            return Err(FieldError::new(path("parameters"), "empty", limit, "try [\"vision\"]"));
        }
        let rate = self.learning_rate.unwrap_or(0.0);
        FieldError::check_range(path("learning_rate"), rate, 0.0..=1e3, "try 1e-4")?;
        let decay = f64::from(self.weight_decay.unwrap_or(0.0));
        FieldError::check_range(path("weight_decay"), decay, 0.0..=1e3, "try 0.05")
    }
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
            z_loss: 0.0,
            groups: Vec::new(),
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
            ("optimizer.z_loss", self.z_loss, 1e3, "try 1e-4, or 0 for none"),
            ("optimizer.beta_1", f64::from(self.beta_1), 0.999_999, "try 0.9"),
            ("optimizer.beta_2", f64::from(self.beta_2), 0.999_999, "try 0.95"),
            ("optimizer.clip_norm", self.clip_norm, 1e12, "try 1, or 0 for no clipping"),
            ("optimizer.ema_decay", self.ema_decay, 0.999_999_9, "try 0.999, or 0 for none"),
        ];
        for (path, value, max, remedy) in fields {
            FieldError::check_range(path, value, 0.0..=max, remedy)?;
        }
        if self.learning_rate == 0.0 && self.groups.iter().any(|g| g.learning_rate.is_some()) {
            let limit = "above 0 where a group has its own";
            let remedy = "give the learning rate of the other parameters, or freeze them";
            return Err(FieldError::new("optimizer.learning_rate", 0, limit, remedy));
        }
        (0..).zip(&self.groups).try_for_each(|(i, group)| group.validate(i))
    }

    /// Checks that every group names one of the parameters of the model.
    pub(in crate::runtime) fn check_names(&self, parameters: &[String]) -> Result<(), FieldError> {
        for (i, group) in self.groups.iter().enumerate() {
            let path = format!("optimizer.groups[{i}].parameters");
            let named = |name: &&String| parameters.iter().any(|p| name_covers(name, p));
            if let Some(name) = group.parameters.iter().find(|name| !named(name)) {
                return Err(no_such_part(path, name, parameters));
            }
        }
        Ok(())
    }

    /// The first group that names a parameter.
    pub(super) fn group_of(&self, parameter: &str) -> Option<&ParameterGroup> {
        let named = |group: &&ParameterGroup| {
            group.parameters.iter().any(|name| name_covers(name, parameter))
        };
        self.groups.iter().find(named)
    }
}
