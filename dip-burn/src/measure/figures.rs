//! Arithmetic of measurements: a part is the difference of two chunks.

use dip_core::profile::{PartBytes, PartTimes};

/// Seconds and bytes of one chunk, or of a part of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub times: PartTimes,
    pub kept: PartBytes,
}

impl Figures {
    /// One of `n` equal parts.
    pub fn share(self, n: f64) -> Self {
        let none = (PartTimes::default(), PartBytes::default());
        Self { times: none.0.plus(self.times, 1.0 / n), kept: none.1.plus(self.kept, 1.0 / n) }
    }

    /// The difference to `other`; no time is negative.
    pub fn less(self, other: Self) -> Self {
        let times = self.times.plus(other.times, -1.0).not_negative();
        Self { times, kept: self.kept.plus(other.kept, -1.0) }
    }
}

/// The mean without the smallest and the largest tenth (at least one of each, from five values on); 0 without values. A mean is
/// used because times of stages add up, and so do means, but not medians. Rare long delays are left out, because they do not
/// predict the next run.
pub(super) fn typical(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let ends = if values.len() < 5 { 0 } else { values.len().div_ceil(10) };
    let middle = &values[ends..values.len() - ends];
    middle.iter().sum::<f64>() / middle.len().max(1) as f64
}

/// The lower quartile of rounds, because other work on the machine makes rounds slower, never faster.
pub fn undisturbed(rounds: &mut [f64]) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 4).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::typical;

    #[test]
    fn rare_delays_do_not_count_and_usual_ones_do() {
        assert_eq!(typical([].into_iter()), 0.0);
        assert_eq!(typical([3.0, 1.0].into_iter()), 2.0);
        assert_eq!(typical([1.0, 2.0, 2.0, 5.0, 90.0].into_iter()), 3.0);
    }
}
