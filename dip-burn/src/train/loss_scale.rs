//! The loss scale of f16, whose smallest gradients would otherwise vanish.

use serde::{Deserialize, Serialize};

use crate::model::Precision;

/// First scale of a run in f16.
const FIRST: f64 = 65_536.0;
/// Largest scale.
const MOST: f64 = 16_777_216.0;
/// Steps without an overflow after which the scale doubles.
const PATIENCE: u32 = 1000;

/// What the loss is multiplied with: as large as gradients allow. Always 1 where the precision has the range of f32.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    scale: f64,
    steps: u32,
    dynamic: bool,
}

impl LossScale {
    /// That of a run that starts.
    pub fn new(precision: Precision) -> Self {
        let dynamic = precision == Precision::F16;
        Self { scale: if dynamic { FIRST } else { 1.0 }, steps: 0, dynamic }
    }

    /// The scale of the next step.
    pub fn value(self) -> f64 {
        self.scale
    }

    /// Learns whether the gradients of a step were finite: halves after an overflow, doubles after a long time without one.
    /// False where there is nothing left to halve, so that the run has diverged.
    pub fn learn(&mut self, finite: bool) -> bool {
        if !finite {
            let can_halve = self.dynamic && self.scale > 1.0;
            (self.scale, self.steps) = ((self.scale / 2.0).max(1.0), 0);
            return can_halve;
        }
        self.steps += 1;
        if self.dynamic && self.steps >= PATIENCE {
            (self.scale, self.steps) = ((self.scale * 2.0).min(MOST), 0);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_halves_after_an_overflow_and_doubles_after_patience() {
        let mut scale = LossScale::new(Precision::F16);
        assert!(scale.learn(false));
        assert_eq!(scale.value(), FIRST / 2.0);
        (0..PATIENCE).for_each(|_| assert!(scale.learn(true)));
        assert_eq!(scale.value(), FIRST);
    }

    #[test]
    fn an_overflow_that_no_scale_explains_is_a_divergence() {
        let mut scale = LossScale::new(Precision::F16);
        assert_eq!((0..100).take_while(|_| scale.learn(false)).count(), 16);
        assert!(!LossScale::new(Precision::Bf16).learn(false));
        assert_eq!(LossScale::new(Precision::Bf16).value(), 1.0);
    }
}
