//! A timeline as a figure for papers: an SVG that needs no page and stays readable in grey.
//!
//! Modules differ in colour and hatching; forward, backward and weight gradient from light to dark.

use std::collections::HashSet;

use dip_core::{Seconds, TaskKind};

use super::colours;
use super::markup::{escape, put};
use super::run::{TimelineRun, modules};
use super::summary::Summary;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 14.0;
/// The width of all lanes.
const SCALE: f64 = WIDTH - LEFT - RIGHT;
const LANE: f64 = 20.0;
const GAP: f64 = 4.0;
const HEADING: f64 = 22.0;
const LEGEND: f64 = 22.0;
const AXIS: f64 = 26.0;
/// Stages narrower than this share of a lane are drawn without an outline.
const OUTLINED: f64 = 0.002;

/// Returns the figure: the runs below each other on one time axis, and a legend.
pub fn svg(runs: &[TimelineRun<'_>]) -> String {
    let summaries: Vec<Summary<'_>> = runs.iter().map(|r| Summary::of(r.plan, r.trace)).collect();
    let end = runs.iter().map(TimelineRun::last_end).fold(Seconds::ZERO, Seconds::max);
    let lanes: usize = summaries.iter().map(|s| s.ranks.len()).sum();
    let height = LEGEND + AXIS + HEADING * runs.len() as f64 + (LANE + GAP) * lanes as f64;
    let modules = modules(runs);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"Helvetica,Arial,sans-serif\" \
         font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    hatches(&mut out, modules.len());
    legend(&mut out, &modules, &used(runs));
    let mut top = LEGEND;
    for (run, summary) in runs.iter().zip(&summaries) {
        let heading = format!("{}: {}", run.label, summary.makespan);
        put(
            &mut out,
            format_args!(
                "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>\n",
                top + 15.0,
                escape(&heading)
            ),
        );
        top += HEADING;
        for (i, rank) in summary.ranks.iter().enumerate() {
            put(&mut out, format_args!("<text x=\"0\" y=\"{}\">rank {i}</text>\n", top + 14.0));
            put(
                &mut out,
                format_args!(
                    "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{SCALE}\" height=\"{LANE}\" fill=\"#eee\"/>\n"
                ),
            );
            for (task, span) in &rank.spans {
                let module = modules.iter().position(|m| *m == &*task.module).unwrap_or(0);
                stage(
                    &mut out,
                    module,
                    task.kind,
                    (share(span.start, end), share(span.end, end)),
                    top,
                );
            }
            top += LANE + GAP;
        }
    }
    axis(&mut out, end, top);
    out.push_str("</svg>\n");
    out
}

fn share(time: Seconds, end: Seconds) -> f64 {
    if end.0 > 0.0 { time / end } else { 0.0 }
}

/// The second module has lines from left to right, the third the other way, the fourth upright; the first has none.
fn hatches(out: &mut String, modules: usize) {
    out.push_str("<defs>\n");
    for i in 1..modules {
        let angle = [45, 135, 0][(i - 1) % 3];
        put(
            out,
            format_args!(
                "<pattern id=\"h{i}\" width=\"4\" height=\"4\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate({angle})\">\
                 <line y2=\"4\" stroke=\"#0006\" stroke-width=\"1.4\"/></pattern>\n"
            ),
        );
    }
    out.push_str("</defs>\n");
}

/// The modules and kinds of all stages.
fn used<'a>(runs: &[TimelineRun<'a>]) -> HashSet<(&'a str, TaskKind)> {
    let tasks = runs.iter().flat_map(|run| &run.plan.graph.tasks);
    tasks.map(|task| (&*task.module, task.kind)).collect()
}

fn legend(out: &mut String, modules: &[&str], used: &HashSet<(&str, TaskKind)>) {
    let mut left = LEFT;
    for (i, name) in modules.iter().enumerate() {
        for (kind, text) in [
            (TaskKind::Forward, " forward"),
            (TaskKind::Backward, " backward"),
            (TaskKind::Weight, " weight gradient"),
        ] {
            if !used.contains(&(*name, kind)) {
                continue;
            }
            let colour = colours::module(i)[colours::shade(kind)];
            let text = format!("{name}{text}");
            for fill in fills(i, colour) {
                put(
                    out,
                    format_args!(
                        "<rect x=\"{left}\" y=\"3\" width=\"14\" height=\"11\" fill=\"{fill}\"/>"
                    ),
                );
            }
            put(
                out,
                format_args!("<text x=\"{}\" y=\"13\">{}</text>\n", left + 18.0, escape(&text)),
            );
            left += 32.0 + 6.0 * text.chars().count() as f64;
        }
    }
}

/// A stage is its colour below the hatching of its module.
fn fills(module: usize, colour: &str) -> Vec<String> {
    let hatch = (module > 0).then(|| format!("url(#h{module})"));
    std::iter::once(colour.to_owned()).chain(hatch).collect()
}

fn stage(out: &mut String, module: usize, kind: TaskKind, (from, to): (f64, f64), top: f64) {
    let (left, width) = (LEFT + SCALE * from, SCALE * (to - from).max(0.0));
    let outline = if to - from > OUTLINED { " stroke=\"#fff\" stroke-width=\".5\"" } else { "" };
    for fill in fills(module, colours::module(module)[colours::shade(kind)]) {
        put(
            out,
            format_args!(
                "<rect x=\"{left:.2}\" y=\"{top}\" width=\"{width:.2}\" height=\"{LANE}\" fill=\"{fill}\"{outline}/>\n"
            ),
        );
    }
}

/// Ticks at round times.
fn axis(out: &mut String, end: Seconds, top: f64) {
    let step = round_step(end.0 / 6.0);
    let mut tick = 0.0;
    while step > 0.0 && tick * step <= end.0 {
        let time = Seconds(tick * step);
        let at = LEFT + SCALE * share(time, end);
        let label = if tick > 0.0 { time.to_string() } else { "0".into() };
        let (line, text) = (top + 5.0, top + 18.0);
        put(
            out,
            format_args!(
                "<line x1=\"{at:.2}\" x2=\"{at:.2}\" y1=\"{top}\" y2=\"{line}\" stroke=\"#000\"/>"
            ),
        );
        put(
            out,
            format_args!(
                "<text x=\"{at:.2}\" y=\"{text}\" text-anchor=\"middle\">{label}</text>\n"
            ),
        );
        tick += 1.0;
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least `least`; 0 if `least` is.
fn round_step(least: f64) -> f64 {
    if least <= 0.0 {
        return 0.0;
    }
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|k| k * power)
        .into_iter()
        .find(|s| *s >= least)
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_the_axis_are_round() {
        for (least, step) in [(0.0, 0.0), (0.3, 0.5), (1.0, 1.0), (1.95, 2.0), (6e-4, 1e-3)] {
            assert!((round_step(least) - step).abs() < 1e-12, "{least}");
        }
    }
}
