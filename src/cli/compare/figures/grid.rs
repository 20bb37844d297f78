//! Degrees of data, tensor and pipeline parallelism for VLM-M on 64 devices.

use anyhow::Result;
use dip::emu::report::charts::{Bars, Figure, bars};
use dip::sched::systems::DipSystem;
use serde_json::{Value, json};

use super::{Inputs, preset};
use crate::cli::compare::contest::System;

const MODEL: &str = "vlm-m";
const DEVICES: u32 = 64;
/// Microbatches of an iteration over all replicas.
const MICROBATCHES: u32 = 128;

pub fn draw(inputs: &Inputs<'_>) -> Result<(Figure, Value)> {
    let degrees = || (0..4).map(|i| 1u32 << i);
    let mut found: Vec<(String, f64)> = Vec::new();
    let systems = [System::Pipeline(Box::new(DipSystem))];
    for (data, tensor) in degrees().chain([16]).flat_map(|d| degrees().map(move |t| (d, t))) {
        let pipeline = DEVICES / (data * tensor);
        if !(2..=16).contains(&pipeline) {
            continue;
        }
        let mut model = preset(MODEL)?;
        model.parallel = dip::core::Parallelism { data, tensor, pipeline };
        let count = Some(MICROBATCHES / data);
        let batches =
            dip::emu::sample(&model, inputs.iterations.min(3), inputs.contest.seed, count);
        let result = inputs.contest.run(&model, &systems, &batches)?;
        if let Some(done) = result.systems.iter().find(|s| s.failure.is_none()) {
            found.push((format!("{data}·{tensor}·{pipeline}"), done.seconds().mean));
        }
    }
    found.sort_by(|a, b| a.1.total_cmp(&b.1));
    let chart = Bars {
        value: "seconds an iteration".into(),
        group: "data · tensor · pipeline".into(),
        groups: found.iter().map(|f| f.0.clone()).collect(),
        series: vec![("dip".into(), found.iter().map(|f| Some((f.1, 0.0))).collect())],
    };
    let figure = Figure {
        title: format!("Degrees of parallelism, {MODEL} on {DEVICES} devices"),
        caption: format!(
            "{MICROBATCHES} microbatches an iteration, gradients of the replicas summed at its end. Degrees that do not \
             fit in memory are left out; the paper's choice is 8·2·4."
        ),
        svg: bars(&chart),
    };
    Ok((figure, json!(found)))
}
