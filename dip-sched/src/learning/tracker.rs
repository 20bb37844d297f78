//! A value that drifts at an unknown pace.

use serde::{Deserialize, Serialize};

/// Weights of a new value in each mean.
const GAINS: [f64; 3] = [0.05, 0.2, 0.6];
/// Weight of a new error in the mean error of each mean.
const GAIN_OF_ERRORS: f64 = 0.05;
/// Maximum distance of a new value from the prediction, once there are some values.
const MAX_SURPRISE: f64 = 0.3;
const SETTLED: u64 = 5;

/// Exponential means of several paces, of which the one that has predicted best lately counts: slow ones average noise, fast ones
/// follow changes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracker {
    values: u64,
    means: [f64; 3],
    /// Mean absolute error of each mean.
    errors: [f64; 3],
}

impl Tracker {
    /// The value to expect next; 0 at the start.
    pub fn value(&self) -> f64 {
        let best = (0..GAINS.len()).min_by(|&a, &b| self.errors[a].total_cmp(&self.errors[b]));
        self.means[best.unwrap_or(0)]
    }

    /// True if its numbers are finite.
    pub fn is_sound(&self) -> bool {
        self.means.iter().chain(&self.errors).all(|x| x.is_finite())
    }

    /// Follows a new value. Values that are not finite are left out.
    pub fn learn(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let expected = self.value();
        self.values += 1;
        let value = if self.values > SETTLED {
            value.clamp(expected - MAX_SURPRISE, expected + MAX_SURPRISE)
        } else {
            value
        };
        let first = 1.0 / self.values as f64;
        for ((mean, error), gain) in self.means.iter_mut().zip(&mut self.errors).zip(GAINS) {
            *error += GAIN_OF_ERRORS.max(first) * ((value - *mean).abs() - *error);
            *mean += gain.max(first) * (value - *mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_averaged_and_changes_are_followed() {
        let mut tracker = Tracker::default();
        (0..200).for_each(|i| tracker.learn(0.1 + if i % 2 == 0 { 0.05 } else { -0.05 }));
        assert!((tracker.value() - 0.1).abs() < 0.01, "{tracker:?}");
        (0..12).for_each(|_| tracker.learn(0.4));
        assert!((tracker.value() - 0.4).abs() < 0.05, "{tracker:?}");
    }
}
