//! Ends a run whose held-out loss no longer falls.

use serde::{Deserialize, Serialize};

/// The best held-out loss so far, kept in checkpoints, so that a resumed run stops at the same iteration as an uninterrupted run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// The lowest held-out loss; `None` before the first evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<f64>,
    /// Evaluations since then.
    #[serde(default)]
    pub since: u64,
}

impl EarlyStop {
    /// Records the loss of an evaluation.
    pub fn record(&mut self, loss: f64) {
        if self.best.is_none_or(|best| loss < best) {
            *self = Self { best: Some(loss), since: 0 };
        } else {
            self.since += 1;
        }
    }

    /// True after `patience` evaluations in a row without a lower loss; never if it is 0.
    pub fn is_over(&self, patience: u64) -> bool {
        patience > 0 && self.since >= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_once_its_patience_is_exhausted() {
        let mut stop = EarlyStop::default();
        let over: Vec<bool> = [3.0, 2.0, 2.5, 1.5, 1.5, f64::NAN]
            .map(|loss| {
                stop.record(loss);
                stop.is_over(2)
            })
            .to_vec();
        assert_eq!(over, [false, false, false, false, false, true]);
        assert_eq!(stop.best, Some(1.5));
        assert!(!stop.is_over(0));
    }
}
