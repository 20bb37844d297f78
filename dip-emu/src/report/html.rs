//! A self-contained page: headline figures, and the stages and the memory of each rank over time.

use std::fmt::Write;

use dip_core::{Bytes, Plan, Seconds, Task, TaskKind, Trace};

use super::markup::escape;
use super::summary::{RankSummary, Summary, describe, limit_text};

/// Heights in pixels: of the time axis, and for each rank of its label, its stages, its memory and the gap below.
const AXIS: f64 = 20.0;
const LABEL: f64 = 15.0;
const STAGES: f64 = 28.0;
const MEMORY: f64 = 24.0;
const GAP: f64 = 10.0;
/// A stage shows its microbatch if it is wider than this share of the page.
const MIN_LABELLED: f64 = 0.02;
/// The width of a memory curve in its own units. The page stretches it.
const CURVE_WIDTH: f64 = 10_000.0;

/// Colours of modules that most people tell apart: forward, backward and weight gradient. They repeat for further modules.
const COLOURS: [[&str; 3]; 8] = [
    ["#78ade2", "#2b7aca", "#1e578f"],
    ["#e2b678", "#ca882b", "#8f601e"],
    ["#78e2b6", "#2bca88", "#1e8f60"],
    ["#e278b6", "#ca2b88", "#8f1e60"],
    ["#a578e2", "#6d2bca", "#4d1e8f"],
    ["#e2e278", "#caca2b", "#8f8f1e"],
    ["#78dae2", "#2bbdca", "#1e868f"],
    ["#e28178", "#ca382b", "#8f281e"],
];

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:14px/1.5 system-ui,sans-serif;margin:24px;max-width:1280px}\
dl{display:flex;flex-wrap:wrap;gap:8px 28px;margin:0 0 16px}\
dt{font-size:12px;opacity:.7}dd{margin:0;font-weight:600;font-variant-numeric:tabular-nums}\
.legend span{display:inline-block;margin-right:18px}\
.legend i{display:inline-block;width:14px;height:12px;margin-right:3px;vertical-align:-1px}\
.chart{overflow-x:auto;border:1px solid #8884;border-radius:6px;padding:8px}\
text{font:11px system-ui,sans-serif;fill:currentColor}\
rect.s{stroke:#fff8;stroke-width:.4}rect.s:hover{stroke:#000;stroke-width:1.2}\
.m{fill:#8887}.l{stroke:#c33;stroke-dasharray:3 2}.g{stroke:#8883}\
.k{text-anchor:middle;fill:#000;pointer-events:none}";

const ZOOM: &str = "const z=document.getElementById('z'),s=document.querySelector('svg');\
z.oninput=()=>{s.style.width=(100*z.value)+'%'}";

/// Returns the page of a run.
pub fn html(plan: &Plan, trace: &Trace) -> String {
    let summary = Summary::of(plan, trace);
    let title = format!("{} on {}: {}", plan.graph.model, plan.graph.cluster, plan.schedule);
    let mut out = String::new();
    out.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    put(&mut out, format_args!("<title>{}</title><style>{STYLE}</style></head>\n", escape(&title)));
    put(&mut out, format_args!("<body><h1>{}</h1>\n<dl>", escape(&title)));
    for (label, value) in summary.headline() {
        put(&mut out, format_args!("<div><dt>{label}</dt><dd>{}</dd></div>", escape(&value)));
    }
    out.push_str("</dl>\n");
    legend(&mut out, &summary);
    out.push_str(
        "<p><label>zoom <input id=\"z\" type=\"range\" min=\"1\" max=\"20\" step=\"0.5\" value=\"1\"></label></p>\n",
    );
    chart(&mut out, &summary);
    put(&mut out, format_args!("<script>{ZOOM}</script></body></html>\n"));
    out
}

fn legend(out: &mut String, summary: &Summary<'_>) {
    out.push_str("<p class=\"legend\">");
    for (i, module) in summary.modules.iter().enumerate() {
        out.push_str("<span>");
        for kind in [TaskKind::Forward, TaskKind::Backward, TaskKind::Weight] {
            put(out, format_args!("<i style=\"background:{}\"></i>", colour(i, kind)));
        }
        put(out, format_args!("{}</span>", escape(module)));
    }
    out.push_str("forward, backward and weight gradients from light to dark</p>\n");
}

/// Positions are percentages of the width, so that zooming stretches neither text nor lines.
fn chart(out: &mut String, summary: &Summary<'_>) {
    let row = LABEL + STAGES + MEMORY + GAP;
    let height = AXIS + row * summary.ranks.len() as f64;
    put(
        out,
        format_args!(
            "<div class=\"chart\"><svg style=\"width:100%;height:{height}px\" role=\"img\" \
             aria-label=\"stages and memory of every rank\">\n"
        ),
    );
    let end = last_end(summary);
    axis(out, end);
    for (i, rank) in summary.ranks.iter().enumerate() {
        let top = AXIS + row * i as f64;
        let (baseline, peak) = (top + LABEL - 4.0, rank.memory.peak);
        put(out, format_args!("<text y=\"{baseline}\">rank {i}, peak {peak}</text>\n"));
        for (task, span) in &rank.spans {
            let place = StageBox {
                left: share(span.start, end),
                right: share(span.end, end),
                top: top + LABEL,
            };
            stage(out, task, colour(summary.module(task), task.kind), place);
        }
        memory_curve(out, rank, end, top + LABEL + STAGES);
    }
    out.push_str("</svg></div>\n");
}

/// The time at which the last span ends.
fn last_end(summary: &Summary<'_>) -> Seconds {
    let ends = summary.ranks.iter().flat_map(|r| r.spans.iter().map(|(_, span)| span.end));
    ends.fold(Seconds::ZERO, Seconds::max)
}

fn share(time: Seconds, end: Seconds) -> f64 {
    if end.0 > 0.0 { time / end } else { 0.0 }
}

fn axis(out: &mut String, end: Seconds) {
    for tick in 0..=8 {
        let (time, at) = (end * (f64::from(tick) / 8.0), 12.5 * f64::from(tick));
        let anchor = ["start", "middle", "end"][usize::from(tick > 0) + usize::from(tick == 8)];
        put(
            out,
            format_args!(
                "<line class=\"g\" x1=\"{at}%\" x2=\"{at}%\" y1=\"14\" y2=\"100%\"/>\
                 <text x=\"{at}%\" y=\"11\" text-anchor=\"{anchor}\">{time}</text>\n"
            ),
        );
    }
}

/// Where a stage is drawn.
struct StageBox {
    /// Shares of the width.
    left: f64,
    right: f64,
    /// In pixels.
    top: f64,
}

fn stage(out: &mut String, task: &Task, colour: &str, place: StageBox) {
    let top = place.top;
    let title = format!(
        "task {}: {}\n{}, strategy {}, {}",
        task.id,
        describe(task),
        task.duration_s,
        task.strategy,
        task.activation_bytes
    );
    let (left, width) = (100.0 * place.left, 100.0 * (place.right - place.left).max(0.0));
    put(
        out,
        format_args!(
            "<rect class=\"s\" x=\"{left:.4}%\" y=\"{top}\" width=\"{width:.4}%\" height=\"{STAGES}\" \
             fill=\"{colour}\"><title>{}</title></rect>\n",
            escape(&title)
        ),
    );
    if place.right - place.left > MIN_LABELLED {
        let (centre, baseline) = (left + width / 2.0, top + STAGES / 2.0 + 4.0);
        let text = format_args!(
            "<text class=\"k\" x=\"{centre:.4}%\" y=\"{baseline}\">{}.{}</text>\n",
            task.microbatch, task.sub_microbatch
        );
        put(out, text);
    }
}

/// Draws memory as an area under steps, and the limit as a line if it is near the peak.
fn memory_curve(out: &mut String, rank: &RankSummary<'_>, end: Seconds, top: f64) {
    let peak = rank.memory.peak.0.max(1) as f64;
    let shows_limit = (rank.limit.0 as f64) < 3.0 * peak;
    let scale = if shows_limit { peak.max(rank.limit.0 as f64) } else { peak };
    let y = |bytes: Bytes| MEMORY * (1.0 - bytes.0 as f64 / scale);
    let mut path = format!("M0 {MEMORY}");
    let mut last = Bytes::ZERO;
    for &(time, bytes) in &rank.memory.points {
        let at = CURVE_WIDTH * share(time, end);
        put(&mut path, format_args!("L{at:.1} {:.2}L{at:.1} {:.2}", y(last), y(bytes)));
        last = bytes;
    }
    put(&mut path, format_args!("L{CURVE_WIDTH} {:.2}L{CURVE_WIDTH} {MEMORY}Z", y(last)));
    let title = format!("memory: peak {}, limit {}", rank.memory.peak, limit_text(rank.limit));
    put(
        out,
        format_args!(
            "<svg y=\"{top}\" height=\"{MEMORY}\" viewBox=\"0 0 {CURVE_WIDTH} {MEMORY}\" preserveAspectRatio=\"none\">\
             <path class=\"m\" d=\"{path}\"><title>{title}</title></path></svg>\n"
        ),
    );
    if shows_limit {
        let at = top + y(rank.limit);
        put(
            out,
            format_args!(
                "<line class=\"l\" x2=\"100%\" y1=\"{at:.2}\" y2=\"{at:.2}\"><title>{title}</title></line>\n"
            ),
        );
    }
}

fn colour(module: usize, kind: TaskKind) -> &'static str {
    let shades = COLOURS[module % COLOURS.len()];
    match kind {
        TaskKind::Forward => shades[0],
        TaskKind::Backward => shades[1],
        TaskKind::Weight => shades[2],
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string cannot fail");
}
