//! The axes, colours and legend that all charts share.

use crate::report::markup::escape;

/// The width and the height of a chart in pixels, and its margins.
pub const WIDTH: f64 = 900.0;
pub const HEIGHT: f64 = 340.0;
pub const LEFT: f64 = 64.0;
pub const RIGHT: f64 = 56.0;
pub const TOP: f64 = 40.0;
pub const BOTTOM: f64 = 46.0;
/// The approximate number of ticks of an axis.
const TICKS: f64 = 6.0;
/// Colours of series that most people tell apart. They repeat for further series.
pub const COLOURS: [&str; 8] =
    ["#8a8f98", "#ca882b", "#2bca88", "#2b7aca", "#ca2b88", "#6d2bca", "#2bbdca", "#ca382b"];

/// A linear scale from values to pixels.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// A horizontal scale.
    pub fn across(from: f64, to: f64) -> Self {
        Self { from, to: above(from, to), start: LEFT, end: WIDTH - RIGHT }
    }

    /// A vertical scale that ends at a round value.
    pub fn up(from: f64, to: f64) -> Self {
        let step = step(above(from, to) - from);
        let to = from + ((above(from, to) - from) / step).ceil() * step;
        Self { from, to, start: HEIGHT - BOTTOM, end: TOP }
    }

    /// The pixel of a value.
    pub fn at(&self, value: f64) -> f64 {
        self.start + (self.end - self.start) * (value - self.from) / (self.to - self.from)
    }

    /// The round values along the scale.
    pub fn ticks(&self) -> Vec<f64> {
        let step = step(self.to - self.from);
        let first = (self.from / step).ceil() as i64;
        let last = (self.to / step + 1e-9).floor() as i64;
        (first..=last).map(|i| i as f64 * step).collect()
    }
}

fn above(from: f64, to: f64) -> f64 {
    if to > from && to.is_finite() { to } else { from + 1.0 }
}

/// The distance between ticks: 1, 2 or 5 times a power of ten.
fn step(length: f64) -> f64 {
    let rough = length / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|f| f * power).find(|&s| s >= rough).unwrap_or(power)
}

/// The value with at most three decimals.
pub fn tick_text(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// The opening `svg` tag.
pub fn open(label: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
        escape(label)
    )
}

/// Draws the grid lines, values and label of the vertical axis.
pub fn vertical(out: &mut String, scale: &Scale, label: &str) {
    for tick in scale.ticks() {
        let y = scale.at(tick);
        let right = WIDTH - RIGHT;
        out.push_str(&format!(
            "<line class=\"g\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            LEFT - 6.0,
            y + 4.0,
            tick_text(tick)
        ));
    }
    let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
    out.push_str(&format!(
        "<text x=\"16\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {middle})\">{}</text>\n",
        escape(label)
    ));
}

/// Draws the label of the horizontal axis.
pub fn horizontal(out: &mut String, label: &str) {
    out.push_str(&format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0,
        escape(label)
    ));
}

/// Draws one entry for each series along the top.
pub fn legend<'a>(out: &mut String, names: impl Iterator<Item = &'a str>) {
    let mut x = LEFT;
    for (i, name) in names.enumerate() {
        out.push_str(&format!(
            "<rect x=\"{x:.0}\" y=\"12\" width=\"12\" height=\"12\" fill=\"{}\"/>\
             <text x=\"{:.0}\" y=\"22\">{}</text>\n",
            COLOURS[i % COLOURS.len()],
            x + 17.0,
            escape(name)
        ));
        x += 34.0 + 7.0 * name.chars().count() as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(Scale::up(0.0, 26.13).ticks(), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]);
        assert_eq!(Scale::across(0.0, 40.0).ticks().last(), Some(&40.0));
        assert_eq!(tick_text(0.25), "0.25");
        assert_eq!(tick_text(30.0), "30");
    }

    #[test]
    fn an_empty_range_still_has_a_scale() {
        for scale in [Scale::up(0.0, 0.0), Scale::across(3.0, f64::NAN), Scale::up(1.0, 1.0)] {
            assert!(scale.at(1.0).is_finite() && scale.ticks().len() > 1);
        }
    }
}
