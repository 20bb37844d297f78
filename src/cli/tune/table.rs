//! The setups on the terminal.

use dip::plan::ModelSpec;
use dip::tune::{Limit, RouteMix, Setup, TuneReport};

use crate::cli::compare::aligned;

const HEADS: [&str; 13] = [
    "",
    "data",
    "tensor",
    "pipeline",
    "microbatches",
    "step",
    "MFU",
    "tokens/s a device",
    "peak",
    "bubbles",
    "exchange",
    "over bound",
    "limited by",
];

/// The table, the layouts with the commands to go on, and what was left out.
pub fn text(report: &TuneReport, model: &ModelSpec, places: &str) -> String {
    let mut out = String::new();
    if !report.setups.is_empty() {
        out.push_str(&format!(
            "{} on {} devices of {}, {} microbatches a step, {} of each device kept free\n",
            report.model, report.devices, report.cluster, report.microbatches, report.reserve
        ));
        let mut rows = vec![HEADS.map(String::from)];
        rows.extend(report.setups.iter().enumerate().map(|(i, setup)| row(i + 1, setup)));
        out.push_str(&aligned(&rows));
        out.push('\n');
        for (i, setup) in report.setups.iter().enumerate() {
            out.push_str(&details(i + 1, setup, model, places));
        }
    }
    let count = |what: &str, n: usize| if n > 0 { format!(", {n} {what}") } else { String::new() };
    out.push_str(&format!(
        "degrees of parallelism: {} emulated{}{}{}\n",
        report.emulated,
        count("do not fit in memory", report.do_not_fit.len()),
        count("cannot be faster than the last of the table", report.bounded.len()),
        if report.complete { "" } else { "; stopped early, so that faster setups may be missing" }
    ));
    out
}

fn row(number: usize, setup: &Setup) -> [String; 13] {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let parallel = setup.parallel;
    [
        number.to_string(),
        parallel.data.to_string(),
        parallel.tensor.to_string(),
        parallel.pipeline.to_string(),
        setup.microbatches.to_string(),
        setup.seconds.to_string(),
        percent(setup.mfu),
        format!("{:.0}", setup.tokens_per_s),
        setup.peak_bytes.to_string(),
        percent(setup.losses.bubbles),
        percent(setup.losses.exchange),
        percent(setup.gap),
        limit(setup),
    ]
}

fn limit(setup: &Setup) -> String {
    let losses = &setup.losses;
    let (share, what) = match losses.limit() {
        Limit::Computation => return "computation".into(),
        Limit::Bubbles => (losses.bubbles, "waiting in the pipeline"),
        Limit::Memory => (losses.memory, "recompute and offload"),
        Limit::Tensor => (losses.tensor, "exchange in layers"),
        Limit::Exchange => (losses.exchange, "exchange of replicas"),
    };
    format!("{what} {:.0} %", 100.0 * share)
}

/// The layout of a setup, and the command that plans it.
fn details(number: usize, setup: &Setup, model: &ModelSpec, places: &str) -> String {
    let (layout, parallel) = (&setup.layout, setup.parallel);
    let modules = model.modules.iter().zip(&layout.segments).zip(&layout.sub_microbatch);
    let of_module =
        |((spec, segments), size): ((&dip::plan::ModuleSpec, &u32), &u32)| match segments {
            1 => format!("{} in 1 segment, sub-microbatches of {size}", spec.name),
            _ => format!("{} in {segments} segments, sub-microbatches of {size}", spec.name),
        };
    let layouts: Vec<_> = modules.clone().map(of_module).collect();
    let sizes: Vec<_> = modules.map(|((spec, _), size)| format!("{}={size}", spec.name)).collect();
    let (route, on) = match layout.route {
        RouteMix::Loop => ("loop", "loops"),
        RouteMix::Wave => ("wave", "waves"),
        RouteMix::Mixed => ("best", "loops and waves"),
    };
    let mut out = format!(
        "{number}. {}; on {on}; layers {}\n   dip plan {places} --data {} --tensor {} --pipeline {} --microbatches {} --segments {} \
         --sub-microbatch {} --route {route}\n",
        layouts.join("; "),
        setup.memory,
        parallel.data,
        parallel.tensor,
        parallel.pipeline,
        setup.microbatches,
        layout.segment_factor,
        sizes.join(",")
    );
    if parallel.tensor == 1 {
        out.push_str(&format!(
            "   dip train: pipeline.ranks = {}, pipeline.replicas = {} in the run file\n",
            parallel.pipeline, parallel.data
        ));
    }
    out
}
