//! Robust estimates of corrections.

use serde::{Deserialize, Serialize};

/// The standard deviation of normal values over the median of their absolute values.
pub const DEVIATION_OF_MEDIAN: f64 = 1.4826;
/// Values further from their centre than this many deviations count as if they were that far.
const CLIP_DEVIATIONS: f64 = 3.0;
/// From this many values, their median is the centre; before, 0 is.
const MIN_VALUES_FOR_MEDIAN: usize = 5;
/// Minimum of an error: nothing takes less than a tenth of its time.
const MIN_ERROR: f64 = -0.9;
/// Maximum of an error.
const MAX_ERROR: f64 = 9.0;

/// How fast an estimate learns.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Minimum weight of a new iteration.
    pub least_gain: f64,
    /// Iterations without an error that count as learned at the start.
    pub prior: f64,
}

/// The logarithm of a factor, as a mean of the iterations so far that forgets slowly.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    log: f64,
    iterations: f64,
}

impl Estimate {
    /// The logarithm of the factor.
    pub fn value(&self) -> f64 {
        self.log
    }

    /// True if its numbers are finite.
    pub fn is_sound(&self) -> bool {
        self.log.is_finite() && self.iterations.is_finite() && self.iterations >= 0.0
    }

    /// Moves the logarithm, without learning.
    pub fn shift(&mut self, by: f64) {
        self.log += by;
    }

    /// Learns that times were longer than corrected by the share `error`. Returns the step of the logarithm.
    pub fn learn(&mut self, error: f64, pace: Pace) -> f64 {
        self.iterations += 1.0;
        let gain = (1.0 / (self.iterations + pace.prior)).max(pace.least_gain);
        let step = gain * error.clamp(MIN_ERROR, MAX_ERROR).ln_1p();
        self.log += step;
        step
    }
}

/// The weighted mean of values with the standard deviation `deviation`, in which outliers count little. `values` are pairs of a
/// value and a weight.
pub fn robust_mean(values: Vec<(f64, f64)>, deviation: f64) -> f64 {
    let centre = if values.len() < MIN_VALUES_FOR_MEDIAN {
        0.0
    } else {
        median(&mut values.iter().map(|v| v.0).collect::<Vec<_>>())
    };
    let clip = CLIP_DEVIATIONS * deviation;
    let (mut sum, mut weights) = (0.0, 0.0);
    for (value, weight) in values {
        sum += weight * (centre + (value - centre).clamp(-clip, clip));
        weights += weight;
    }
    if weights > 0.0 { sum / weights } else { 0.0 }
}

/// The median of values; 0 without values. Changes their order.
pub fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let (middle, is_odd) = (values.len() / 2, values.len() % 2 == 1);
    let (before, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if is_odd {
        return upper;
    }
    let lower = before.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (lower + upper) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_move_a_mean_by_three_deviations_at_most() {
        let mut values: Vec<(f64, f64)> = (0..9).map(|i| (0.01 * f64::from(i - 4), 1.0)).collect();
        values.push((50.0, 1.0));
        let mean = robust_mean(values, 0.02);
        assert!(mean.abs() < 0.01, "{mean}");
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn the_first_errors_of_an_estimate_are_averaged() {
        let mut estimate = Estimate::default();
        let pace = Pace { least_gain: 0.0, prior: 0.0 };
        for error in [0.2, 0.2, 0.2] {
            // What is left after the correction so far.
            let rest = (1.0 + error) / estimate.value().exp() - 1.0;
            estimate.learn(rest, pace);
        }
        assert!((estimate.value() - 0.2f64.ln_1p()).abs() < 1e-12);
    }
}
