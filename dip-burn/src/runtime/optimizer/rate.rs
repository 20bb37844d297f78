//! Learning rates over a run: linear warm-up, then a cosine, a constant, or warm-up-stable-decay.

use serde::{Deserialize, Serialize};

use super::OptimizerConfig;

/// The learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RateSchedule {
    /// Half a cosine from the peak to `final_share` of it.
    #[default]
    Cosine,
    /// The peak.
    Constant,
    /// The peak, then a straight line to `final_share` of it over the last `decay_share` of the run.
    Wsd,
}

impl OptimizerConfig {
    /// The learning rate of a run of `iterations` after `iteration` optimiser steps. Iterations without an optimiser step do not
    /// count.
    pub fn rate(&self, iteration: u64, iterations: u64) -> f64 {
        if iteration < self.warmup_iterations {
            return self.learning_rate * (iteration + 1) as f64 / self.warmup_iterations as f64;
        }
        self.learning_rate * self.share(iteration, iterations)
    }

    /// The rate after the warm-up, as a share of the peak.
    fn share(&self, iteration: u64, iterations: u64) -> f64 {
        let falls = |shape: f64| self.final_share + (1.0 - self.final_share) * shape;
        // Progress of the iteration from `start` to the end of the run, 0 to 1.
        let since = |start: f64| {
            let span = (iterations as f64 - start).max(1.0);
            ((iteration as f64 - start) / span).clamp(0.0, 1.0)
        };
        match self.schedule {
            RateSchedule::Constant => 1.0,
            RateSchedule::Cosine => {
                let at = since(self.warmup_iterations as f64);
                falls(0.5 * (1.0 + (std::f64::consts::PI * at).cos()))
            }
            RateSchedule::Wsd => {
                let decay = (self.decay_share * iterations as f64).round();
                let start = (iterations as f64 - decay).max(self.warmup_iterations as f64);
                falls(1.0 - since(start))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(schedule: RateSchedule, points: &[(u64, f64)]) {
        let o = OptimizerConfig {
            learning_rate: 1.0,
            warmup_iterations: 10,
            schedule,
            ..OptimizerConfig::default()
        };
        for &(iteration, expected) in points {
            let found = o.rate(iteration, 110);
            assert!((found - expected).abs() < 1e-12, "{schedule:?} {iteration}: {found}");
        }
    }

    #[test]
    fn a_cosine_falls_from_the_peak_to_its_final_share() {
        near(RateSchedule::Cosine, &[(0, 0.1), (10, 1.0), (60, 0.55), (110, 0.1)]);
    }

    #[test]
    fn a_constant_stays_at_the_peak_after_the_warm_up() {
        near(RateSchedule::Constant, &[(0, 0.1), (10, 1.0), (60, 1.0), (110, 1.0)]);
    }

    #[test]
    fn wsd_stays_at_the_peak_and_decays_over_the_last_fifth() {
        near(RateSchedule::Wsd, &[(4, 0.5), (10, 1.0), (88, 1.0), (99, 0.55), (110, 0.1)]);
    }

    #[test]
    fn a_decay_longer_than_the_run_starts_after_the_warm_up() {
        let o = OptimizerConfig {
            learning_rate: 1.0,
            warmup_iterations: 10,
            schedule: RateSchedule::Wsd,
            decay_share: 1.0,
            final_share: 0.0,
            ..OptimizerConfig::default()
        };
        let rates: Vec<f64> = (0..12).map(|i| o.rate(i, 12)).collect();
        assert_eq!(rates[9..], [1.0, 1.0, 0.5]);
    }
}
