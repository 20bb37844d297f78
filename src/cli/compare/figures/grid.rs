//! Degrees of data, tensor and pipeline parallelism for VLM-M on 64 devices.

use anyhow::Result;
use dip::emulate::report::charts::{Bar, BarSeries, Bars, Figure, bars};
use dip::plan::systems::LadderStep;
use serde_json::{Value, json};

use super::Inputs;
use crate::cli::compare::contest::Contestant;

const MODEL: &str = "vlm-m";
const DEVICES: u32 = 64;
/// Microbatches of an iteration over all replicas.
const MICROBATCHES: u32 = 128;

pub fn draw(inputs: &Inputs<'_>) -> Result<(Figure, Value)> {
    let systems: Vec<Contestant> = [LadderStep::Megatron, LadderStep::Memory, LadderStep::Search]
        .into_iter()
        .map(|step| Contestant::Pipeline(Box::new(step)))
        .collect();
    let mut found: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    let degrees = || (0..4).map(|i| 1u32 << i);
    for (data, tensor) in degrees().chain([16]).flat_map(|d| degrees().map(move |t| (d, t))) {
        let pipeline = DEVICES / (data * tensor);
        if !(2..=16).contains(&pipeline) {
            continue;
        }
        let mut model = inputs.model(MODEL)?;
        model.parallel = dip::plan::Parallelism { data, tensor, pipeline };
        if model.indivisible(tensor).is_some() {
            continue;
        }
        let count = Some(MICROBATCHES / data);
        let batches = dip::emulate::sample(
            &model,
            inputs.iterations.min(3),
            inputs.contest.search.seed,
            count,
        );
        let result = inputs.contest.run(&model, &systems, &batches)?;
        let seconds: Vec<_> =
            result.systems.iter().map(|s| s.failure.is_none().then(|| s.seconds().mean)).collect();
        if seconds.iter().any(Option::is_some) {
            found.push((format!("{data}·{tensor}·{pipeline}"), seconds));
        }
    }
    let last = |f: &(String, Vec<Option<f64>>)| f.1.last().copied().flatten().unwrap_or(f64::MAX);
    found.sort_by(|a, b| last(a).total_cmp(&last(b)));
    let series = systems.iter().enumerate().map(|(i, system)| {
        let bar =
            |f: &(String, Vec<Option<f64>>)| f.1[i].map(|value| Bar { value, deviation: 0.0 });
        BarSeries { name: system.name().to_owned(), bars: found.iter().map(bar).collect() }
    });
    let chart = Bars {
        value: "seconds per iteration".into(),
        group: "data · tensor · pipeline".into(),
        groups: found.iter().map(|f| f.0.clone()).collect(),
        series: series.collect(),
    };
    let figure = Figure {
        title: format!(
            "Degrees of parallelism, {} on {DEVICES} devices",
            inputs.model(MODEL)?.name
        ),
        caption: format!(
            "{MICROBATCHES} microbatches per iteration, gradients of the replicas summed at its end: Megatron-LM, the paper's \
             method (up to its memory strategies), and this system. Degrees that do not fit in memory are left out. The \
             paper's choice for VLM-M is 8·2·4."
        ),
        svg: bars(&chart),
    };
    Ok((figure, json!(found)))
}
