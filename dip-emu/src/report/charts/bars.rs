//! Grouped bars.

use serde::Serialize;

use super::frame::{
    BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, Scale, WIDTH, horizontal, legend, open, tick_text,
    vertical,
};
use crate::report::markup::escape;

/// A bar, with the deviation of its value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bar {
    /// The value.
    pub value: f64,
    /// The standard deviation, drawn as a line; 0 draws none.
    pub deviation: f64,
}

/// One bar in every group.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct BarSeries {
    /// The name in the legend.
    pub name: String,
    /// The bar of each group; `None` leaves a gap.
    pub bars: Vec<Option<Bar>>,
}

/// A chart of grouped bars.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bars {
    /// The label of the vertical axis, with the unit.
    pub value: String,
    /// The label of the horizontal axis.
    pub group: String,
    /// The labels of the groups.
    pub groups: Vec<String>,
    /// The series.
    pub series: Vec<BarSeries>,
}

/// The share of the width of a group that its bars fill.
const FILLED: f64 = 0.8;

/// Draws the chart as an `svg` element.
pub fn bars(chart: &Bars) -> String {
    let all = chart.series.iter().flat_map(|s| s.bars.iter().flatten());
    let highest = all.map(|bar| bar.value + bar.deviation).fold(0.0, f64::max);
    let y = Scale::up(0.0, highest);
    let mut out = open(&chart.value);
    vertical(&mut out, &y, &chart.value);
    horizontal(&mut out, &chart.group);
    if chart.series.len() > 1 {
        legend(&mut out, chart.series.iter().map(|s| s.name.as_str()));
    }
    let group = (WIDTH - LEFT - RIGHT) / chart.groups.len().max(1) as f64;
    let width = FILLED * group / chart.series.len().max(1) as f64;
    for (g, label) in chart.groups.iter().enumerate() {
        let left = LEFT + group * (g as f64 + (1.0 - FILLED) / 2.0);
        let (middle, below) = (LEFT + group * (g as f64 + 0.5), HEIGHT - BOTTOM + 16.0);
        out.push_str(&format!(
            "<text x=\"{middle:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>\n",
            escape(label)
        ));
        for (i, series) in chart.series.iter().enumerate() {
            let Some(bar) = series.bars.get(g).copied().flatten() else { continue };
            let shape = BarShape {
                left: left + width * i as f64,
                width,
                colour: COLOURS[i % COLOURS.len()],
                title: format!("{label}, {}: {:.3}", series.name, bar.value),
            };
            shape.draw(&mut out, &y, bar);
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Where a bar is drawn, and how.
struct BarShape {
    left: f64,
    width: f64,
    colour: &'static str,
    /// The text that appears under the pointer.
    title: String,
}

impl BarShape {
    fn draw(&self, out: &mut String, y: &Scale, Bar { value, deviation }: Bar) {
        let Self { left, width, colour, title } = self;
        let (top, bottom, middle) = (y.at(value), y.at(0.0), left + width / 2.0);
        out.push_str(&format!(
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"><title>{}</title></rect>\n",
        width * 0.94,
        (bottom - top).max(0.0),
        escape(title)
    ));
        if deviation > 0.0 {
            let (high, low) = (y.at(value + deviation), y.at((value - deviation).max(0.0)));
            out.push_str(&format!(
            "<line class=\"a\" x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{high:.1}\" y2=\"{low:.1}\"/>\n"
        ));
        }
        let text = if value >= 100.0 {
            format!("{value:.0}")
        } else {
            tick_text((value * 100.0).round() / 100.0)
        };
        let above = y.at(value + deviation) - 4.0;
        out.push_str(&format!(
            "<text x=\"{middle:.1}\" y=\"{above:.1}\" text-anchor=\"middle\">{text}</text>\n"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_bar_and_gaps_have_none() {
        let bar = |value, deviation| Some(Bar { value, deviation });
        let chart = Bars {
            value: "seconds <s>".into(),
            groups: vec!["a".into(), "b & c".into()],
            series: vec![
                BarSeries { name: "one".into(), bars: vec![bar(1.0, 0.1), None] },
                BarSeries { name: "two".into(), bars: vec![bar(2.0, 0.0), bar(3.0, 0.0)] },
            ],
            ..Bars::default()
        };
        let svg = bars(&chart);
        assert_eq!(svg.matches("<title>").count(), 3);
        assert!(svg.contains("b &amp; c") && svg.contains("seconds &lt;s&gt;"));
        assert!(bars(&Bars::default()).ends_with("</svg>\n"));
    }
}
