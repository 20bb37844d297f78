//! The axes and the legend that all charts share.

use super::COLOURS;
use crate::report::markup::escape;

/// Width and height of a chart, and its margins: left, right, top, bottom.
pub const WIDTH: f64 = 900.0;
pub const HEIGHT: f64 = 340.0;
pub const LEFT: f64 = 64.0;
pub const RIGHT: f64 = 56.0;
pub const TOP: f64 = 40.0;
pub const BOTTOM: f64 = 46.0;
/// Ticks that an axis has about.
const TICKS: f64 = 6.0;

/// A linear scale from values to pixels.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// From left to right.
    pub fn across(from: f64, to: f64) -> Self {
        Self { from, to: above(from, to), start: LEFT, end: WIDTH - RIGHT }
    }

    /// From bottom to top, up to a round value.
    pub fn up(from: f64, to: f64) -> Self {
        let step = step(above(from, to) - from);
        let to = from + ((above(from, to) - from) / step).ceil() * step;
        Self { from, to, start: HEIGHT - BOTTOM, end: TOP }
    }

    pub fn at(&self, value: f64) -> f64 {
        self.start + (self.end - self.start) * (value - self.from) / (self.to - self.from)
    }

    /// Round values along the scale.
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

/// 1, 2 or 5 times a power of ten.
fn step(length: f64) -> f64 {
    let rough = length / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|f| f * power).find(|&s| s >= rough).unwrap_or(power)
}

/// The shortest text of a tick.
pub fn tick_text(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// The opening element.
pub fn open(label: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
        escape(label)
    )
}

/// Grid lines with the values of the vertical axis, and its label.
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

/// The label of the horizontal axis.
pub fn horizontal(out: &mut String, label: &str) {
    out.push_str(&format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0,
        escape(label)
    ));
}

/// One entry a series, along the top.
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
