//! Lines, with an optional second axis on the right.

use super::frame::{
    BOTTOM, COLOURS, HEIGHT, RIGHT, Scale, WIDTH, horizontal, legend, open, tick_text, vertical,
};
use crate::report::markup::escape;

/// One line.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// The name in the legend.
    pub name: String,
    /// The points, by rising x.
    pub points: Vec<(f64, f64)>,
    /// True to hold each value until the next point, as memory does.
    pub steps: bool,
}

/// A chart of lines over a common x.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lines {
    /// The label of the horizontal axis, with the unit.
    pub x: String,
    /// The label of the vertical axis, with the unit.
    pub y: String,
    /// The lines.
    pub series: Vec<Series>,
    /// An area with its own axis on the right, such as the load.
    pub right: Option<Series>,
    /// True to start y at zero, false to start it a little below the least value.
    pub from_zero: bool,
}

/// Draws the chart as an `svg` element.
pub fn lines(chart: &Lines) -> String {
    let all = || chart.series.iter().flat_map(|s| s.points.iter()).filter(|p| p.1.is_finite());
    let right = || chart.right.iter().flat_map(|s| s.points.iter());
    let over = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)))
    };
    let (first, last) = over(&mut all().chain(right()).map(|p| p.0));
    let (least, most) = over(&mut all().map(|p| p.1));
    let (first, least) = (if first.is_finite() { first } else { 0.0 }, least);
    let low = if chart.from_zero || !least.is_finite() { 0.0 } else { floor(least, most) };
    let (x, y) = (Scale::across(first, last), Scale::up(low, most));
    let mut out = open(&chart.y);
    if let Some(load) = &chart.right {
        area(&mut out, &x, load);
    }
    vertical(&mut out, &y, &chart.y);
    horizontal(&mut out, &chart.x);
    for tick in x.ticks() {
        out.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            x.at(tick),
            HEIGHT - BOTTOM + 16.0,
            tick_text(tick)
        ));
    }
    legend(&mut out, chart.series.iter().map(|s| s.name.as_str()));
    for (i, series) in chart.series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let path = path(series, &x, &y);
        out.push_str(&format!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"><title>{}</title></path>\n",
            escape(&series.name)
        ));
    }
    out.push_str("</svg>\n");
    out
}

/// The start of the vertical axis: a tenth of the range below the least value. Not below zero for positive values.
fn floor(least: f64, most: f64) -> f64 {
    let range = (most - least).max(least.abs() * 1e-3);
    (least - 0.1 * range).max(if least >= 0.0 { 0.0 } else { f64::NEG_INFINITY })
}

fn path(series: &Series, x: &Scale, y: &Scale) -> String {
    let mut path = String::new();
    let mut last: Option<f64> = None;
    for &(at, value) in series.points.iter().filter(|p| p.1.is_finite()) {
        let (px, py) = (x.at(at), y.at(value));
        match last {
            None => path.push_str(&format!("M{px:.1} {py:.1}")),
            Some(before) if series.steps => {
                path.push_str(&format!("L{px:.1} {before:.1}L{px:.1} {py:.1}"));
            }
            Some(_) => path.push_str(&format!("L{px:.1} {py:.1}")),
        }
        last = Some(py);
    }
    path
}

fn area(out: &mut String, x: &Scale, load: &Series) {
    let (Some(first), Some(last)) = (load.points.first(), load.points.last()) else { return };
    let most = load.points.iter().map(|p| p.1).fold(0.0, f64::max);
    // The area stays in the lower half, so that it does not hide the lines.
    let y = Scale::up(0.0, 2.0 * most);
    let line = path(load, x, &y);
    let (bottom, left, right) = (y.at(0.0), x.at(first.0), x.at(last.0));
    out.push_str(&format!(
        "<path d=\"{line}L{right:.1} {bottom:.1}L{left:.1} {bottom:.1}Z\" fill=\"#8884\"/>\n"
    ));
    for tick in y.ticks().into_iter().filter(|&t| t <= most) {
        let edge = WIDTH - RIGHT + 6.0;
        let baseline = y.at(tick) + 4.0;
        out.push_str(&format!(
            "<text x=\"{edge}\" y=\"{baseline:.1}\">{}</text>\n",
            tick_text(tick)
        ));
    }
    out.push_str(&format!(
        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
        WIDTH - 8.0,
        y.at(1.2 * most),
        escape(&load.name)
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_hold_their_value() {
        let series = Series { name: "a".into(), points: vec![(0.0, 1.0), (1.0, 2.0)], steps: true };
        let (x, y) = (Scale::across(0.0, 1.0), Scale::up(0.0, 2.0));
        assert_eq!(path(&series, &x, &y).matches('L').count(), 2);
        assert_eq!(path(&Series { steps: false, ..series }, &x, &y).matches('L').count(), 1);
    }

    #[test]
    fn a_chart_without_points_is_still_a_chart() {
        let empty = Lines { series: vec![Series::default()], ..Lines::default() };
        let svg = lines(&empty);
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
