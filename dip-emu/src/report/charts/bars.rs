//! Grouped bars.

use super::COLOURS;
use super::frame::{
    BOTTOM, HEIGHT, LEFT, RIGHT, Scale, WIDTH, horizontal, legend, open, tick_text, vertical,
};
use crate::report::markup::escape;

/// A value and its deviation; `None` leaves a gap.
pub type Bar = Option<(f64, f64)>;

/// Bars of several series over groups.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bars {
    /// What the bars are in, with the unit.
    pub value: String,
    /// What the groups are.
    pub group: String,
    /// Labels of the groups.
    pub groups: Vec<String>,
    /// Name of each series and its bar in every group.
    pub series: Vec<(String, Vec<Bar>)>,
}

/// Share of a group that its bars fill.
const FILLED: f64 = 0.8;

/// The chart.
pub fn bars(chart: &Bars) -> String {
    let values = chart.series.iter().flat_map(|s| s.1.iter().flatten());
    let most = values.map(|(value, deviation)| value + deviation).fold(0.0, f64::max);
    let y = Scale::up(0.0, most);
    let mut out = open(&chart.value);
    vertical(&mut out, &y, &chart.value);
    horizontal(&mut out, &chart.group);
    if chart.series.len() > 1 {
        legend(&mut out, chart.series.iter().map(|s| s.0.as_str()));
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
        for (i, (name, values)) in chart.series.iter().enumerate() {
            let Some((value, deviation)) = values.get(g).copied().flatten() else { continue };
            let x = left + width * i as f64;
            let title = format!("{label}, {name}: {value:.3}");
            bar(&mut out, &y, (x, width), (value, deviation), (COLOURS[i % COLOURS.len()], &title));
        }
    }
    out.push_str("</svg>\n");
    out
}

fn bar(
    out: &mut String,
    y: &Scale,
    (x, width): (f64, f64),
    (value, deviation): (f64, f64),
    (colour, title): (&str, &str),
) {
    let (top, bottom, middle) = (y.at(value), y.at(0.0), x + width / 2.0);
    out.push_str(&format!(
        "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"><title>{}</title></rect>\n",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_bar_and_gaps_have_none() {
        let chart = Bars {
            value: "seconds <s>".into(),
            groups: vec!["a".into(), "b & c".into()],
            series: vec![
                ("one".into(), vec![Some((1.0, 0.1)), None]),
                ("two".into(), vec![Some((2.0, 0.0)), Some((3.0, 0.0))]),
            ],
            ..Bars::default()
        };
        let svg = bars(&chart);
        assert_eq!(svg.matches("<title>").count(), 3);
        assert!(svg.contains("b &amp; c") && svg.contains("seconds &lt;s&gt;"));
        assert!(bars(&Bars::default()).ends_with("</svg>\n"));
    }
}
