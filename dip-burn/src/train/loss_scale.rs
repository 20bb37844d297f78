//! The loss scale of f16, whose smallest gradients would otherwise vanish.

use serde::{Deserialize, Serialize};

use crate::model::Precision;

/// Scale of the first step in f16.
const INITIAL: f64 = 65_536.0;
/// Largest scale.
const MAX: f64 = 16_777_216.0;
/// Steps without an overflow after which the scale doubles.
const GROWTH_STEPS: u32 = 1000;

/// The factor on the loss. In f16 it is as large as the gradients allow; in other precisions it is 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    scale: f64,
    steps: u32,
    dynamic: bool,
}

impl LossScale {
    /// The scale at the start of a run.
    pub fn new(precision: Precision) -> Self {
        let dynamic = precision == Precision::F16;
        Self { scale: if dynamic { INITIAL } else { 1.0 }, steps: 0, dynamic }
    }

    /// The scale of the next step.
    pub fn value(self) -> f64 {
        self.scale
    }

    /// Halves the scale after a step whose gradients overflowed, and doubles it after many finite ones. False if there is nothing
    /// left to halve: the run has diverged.
    pub fn adapt(&mut self, finite: bool) -> bool {
        if !finite {
            let can_halve = self.dynamic && self.scale > 1.0;
            (self.scale, self.steps) = ((self.scale / 2.0).max(1.0), 0);
            return can_halve;
        }
        self.steps += 1;
        if self.dynamic && self.steps >= GROWTH_STEPS {
            (self.scale, self.steps) = ((self.scale * 2.0).min(MAX), 0);
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
        assert!(scale.adapt(false));
        assert_eq!(scale.value(), INITIAL / 2.0);
        (0..GROWTH_STEPS).for_each(|_| assert!(scale.adapt(true)));
        assert_eq!(scale.value(), INITIAL);
    }

    #[test]
    fn an_overflow_at_the_smallest_scale_is_a_divergence() {
        let mut scale = LossScale::new(Precision::F16);
        assert_eq!((0..100).take_while(|_| scale.adapt(false)).count(), 16);
        assert!(!LossScale::new(Precision::Bf16).adapt(false));
        assert_eq!(LossScale::new(Precision::Bf16).value(), 1.0);
    }
}
