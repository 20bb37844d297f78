//! A self-contained page with the timelines of one run, or of several below each other on one time axis.
//!
//! The page draws on a canvas only what is visible, so that it stays smooth with tens of thousands of stages. It zooms and pans
//! with the wheel, the mouse, fingers and keys, and shows details of the stage or bubble below the pointer.

mod data;

use dip_core::Seconds;

use super::bubbles::{BubbleCause, bubbles};
use super::colours;
use super::markup::{escape, put};
use super::run::{TimelineRun, modules};
use super::summary::{Summary, limit_text};
use data::PageData;

const STYLE: &str = include_str!("page.css");
const SCRIPTS: [&str; 3] =
    [include_str!("view.js"), include_str!("draw.js"), include_str!("input.js")];

/// Returns the page. The first run is the one that the others are compared with.
pub fn html(runs: &[TimelineRun<'_>]) -> String {
    let summaries: Vec<Summary<'_>> = runs.iter().map(|r| Summary::of(r.plan, r.trace)).collect();
    let title = title(runs);
    let mut out = String::new();
    out.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    put(&mut out, format_args!("<title>{}</title><style>{STYLE}</style></head>\n", escape(&title)));
    put(&mut out, format_args!("<body><h1>{}</h1>\n", escape(&title)));
    figures(&mut out, runs, &summaries);
    legend(&mut out, runs);
    out.push_str(CHART);
    for (run, summary) in runs.iter().zip(&summaries) {
        ranks(&mut out, run, summary);
    }
    let data = serde_json::to_string(&PageData::of(runs, &summaries))
        .expect("plain data has a JSON form")
        .replace('<', "\\u003c");
    put(&mut out, format_args!("<script type=\"application/json\" id=\"data\">{data}</script>\n"));
    put(
        &mut out,
        format_args!("<script>\"use strict\";\n{}</script></body></html>\n", SCRIPTS.concat()),
    );
    out
}

const CHART: &str = "\
<div class=\"tools\">\
<button id=\"fit\" title=\"key 0\">fit</button><button id=\"in\" title=\"key +\">+</button><button id=\"out\" title=\"key -\">−</button>\
<label><input type=\"checkbox\" id=\"bubbles\" checked> bubbles</label>\
<label><input type=\"checkbox\" id=\"memory\" checked> memory</label>\
<label><input type=\"checkbox\" id=\"critical\"> critical path</label>\
<button id=\"theme\" title=\"key d\">dark or light</button>\
<span class=\"help\">wheel: zoom · drag: pan · click: keep a stage selected · arrows, + − 0, b m c d</span></div>\n\
<div id=\"chart\"><canvas id=\"canvas\" tabindex=\"0\" role=\"img\" aria-label=\"stages and memory of every rank over time; \
the tables below hold the figures\"></canvas><div id=\"spacer\"></div></div><div id=\"tip\" role=\"status\" hidden></div>\n";

fn title(runs: &[TimelineRun<'_>]) -> String {
    let Some(first) = runs.first() else { return "no run".into() };
    let graph = &first.plan.graph;
    let mut schedules: Vec<&str> = Vec::new();
    for run in runs {
        if !schedules.contains(&run.plan.schedule.as_str()) {
            schedules.push(&run.plan.schedule);
        }
    }
    format!("{} on {}: {}", graph.model, graph.cluster, schedules.join(" and "))
}

/// The headline figures, one column a run.
fn figures(out: &mut String, runs: &[TimelineRun<'_>], summaries: &[Summary<'_>]) {
    out.push_str("<table class=\"figures\"><tr><td></td>");
    for run in runs {
        put(out, format_args!("<th>{}</th>", escape(run.label)));
    }
    let columns: Vec<_> = summaries.iter().map(Summary::headline).collect();
    let mut labels: Vec<&str> = Vec::new();
    for (label, _) in columns.iter().flatten() {
        if !labels.contains(label) {
            labels.push(label);
        }
    }
    for label in labels {
        put(out, format_args!("</tr>\n<tr><th>{label}</th>"));
        for column in &columns {
            let value = column.iter().find(|(name, _)| *name == label).map_or("", |(_, v)| v);
            put(out, format_args!("<td>{}</td>", escape(value)));
        }
    }
    out.push_str("</tr></table>\n");
}

fn legend(out: &mut String, runs: &[TimelineRun<'_>]) {
    out.push_str("<p class=\"legend\">");
    for (i, module) in modules(runs).iter().enumerate() {
        out.push_str("<span>");
        for colour in colours::module(i) {
            put(out, format_args!("<i style=\"background:{colour}\"></i>"));
        }
        put(out, format_args!("{}</span>", escape(module)));
    }
    out.push_str("<span>light to dark: forward, backward, weight gradient</span></p>\n<p class=\"legend\">bubbles: ");
    for cause in BubbleCause::ALL {
        let (colour, meaning) = (colours::cause(cause), cause.meaning());
        put(
            out,
            format_args!(
                "<span title=\"{meaning}\"><i class=\"b\" style=\"--c:{colour}\"></i>{cause}</span>"
            ),
        );
    }
    out.push_str("</p>\n");
}

/// One row a rank: busy time, bubbles by cause, memory.
fn ranks(out: &mut String, run: &TimelineRun<'_>, summary: &Summary<'_>) {
    let waits = bubbles(run.plan, run.trace);
    put(
        out,
        format_args!(
            "<details><summary>ranks, {}</summary><table class=\"ranks\"><tr>",
            escape(run.label)
        ),
    );
    out.push_str("<th>rank</th><th>busy</th>");
    for cause in BubbleCause::ALL {
        put(out, format_args!("<th title=\"{}\">{cause}</th>", cause.meaning()));
    }
    out.push_str("<th>peak</th><th>limit</th></tr>\n");
    let last = run.last_end();
    let percent = |time: Seconds| if last.0 > 0.0 { 100.0 * (time / last) } else { 0.0 };
    for (i, (rank, waits)) in summary.ranks.iter().zip(&waits).enumerate() {
        put(out, format_args!("<tr><td>{i}</td><td>{:.1} %</td>", percent(rank.busy())));
        for cause in BubbleCause::ALL {
            let time: Seconds =
                waits.iter().filter(|b| b.cause == cause).map(|b| b.end - b.start).sum();
            put(out, format_args!("<td>{:.1} %</td>", percent(time)));
        }
        let (peak, limit) = (rank.memory.peak, limit_text(rank.limit));
        put(out, format_args!("<td>{peak}</td><td>{limit}</td></tr>\n"));
    }
    out.push_str("</table></details>\n");
}
