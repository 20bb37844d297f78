//! The course of a figure over a whole run, in a few characters.

/// Most characters of a trend.
const WIDTH: usize = 24;
/// Characters from the lowest to the highest value.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Means of a figure over equal parts of a run. When all parts are full, two become one.
#[derive(Debug, Clone, PartialEq)]
pub struct Trend {
    /// Sum and number of the values of each part.
    parts: Vec<(f64, u64)>,
    /// Values of a full part.
    size: u64,
}

impl Default for Trend {
    fn default() -> Self {
        Self { parts: Vec::new(), size: 1 }
    }
}

impl Trend {
    /// Adds the next value.
    pub fn add(&mut self, value: f64) {
        match self.parts.last_mut().filter(|part| part.1 < self.size) {
            Some(part) => *part = (part.0 + value, part.1 + 1),
            None => {
                if self.parts.len() == WIDTH {
                    let pairs = self.parts.chunks(2);
                    self.parts = pairs.map(sum).collect();
                    self.size *= 2;
                }
                self.parts.push((value, 1));
            }
        }
    }

    /// The means as bars, from the first value to the last.
    pub fn bars(&self) -> String {
        let means: Vec<f64> = self.parts.iter().map(|part| part.0 / part.1 as f64).collect();
        let low = means.iter().copied().fold(f64::INFINITY, f64::min);
        let range = means.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low;
        let bar = |mean: f64| match range > 0.0 {
            true => BARS[((mean - low) / range * 7.0).round().clamp(0.0, 7.0) as usize],
            false => BARS[0],
        };
        means.into_iter().map(bar).collect()
    }
}

fn sum(parts: &[(f64, u64)]) -> (f64, u64) {
    parts.iter().fold((0.0, 0), |all, part| (all.0 + part.0, all.1 + part.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_figure_falls_from_the_highest_bar_to_the_lowest() {
        let mut trend = Trend::default();
        assert_eq!(trend.bars(), "");
        trend.add(3.0);
        assert_eq!(trend.bars(), "▁");
        (0..7).rev().for_each(|value| trend.add(f64::from(value) * 3.0 / 7.0));
        assert_eq!(trend.bars(), "█▇▆▅▄▃▂▁");
    }

    #[test]
    fn a_long_run_has_as_many_bars_as_a_short_one_and_loses_no_value() {
        let mut trend = Trend::default();
        (0..10_000).for_each(|value| trend.add(f64::from(value)));
        let bars = trend.bars();
        assert!((WIDTH / 2..=WIDTH).contains(&bars.chars().count()), "{bars}");
        assert!(bars.starts_with('▁') && bars.ends_with('█'));
        assert_eq!(sum(&trend.parts), ((0..10_000).sum::<i32>().into(), 10_000));
    }
}
