//! Throughput of every system on every model, relative to the slowest.

use anyhow::Result;
use dip::emulate::report::charts::{Bar, BarSeries, Bars, Figure, bars};
use serde_json::Value;

use super::Inputs;
use crate::cli::compare::result::{ModelResult, SystemResult};

pub fn draw(inputs: &Inputs<'_>) -> Result<(Figure, Value)> {
    let results = inputs.results;
    let bar = |result: &ModelResult, name: &str| {
        let own = result.systems.iter().find(|s| s.system == name)?;
        (own.failure.is_none()).then(|| relative(result, own))
    };
    let of = |name: &str| results.iter().map(|r| bar(r, name)).collect();
    let chart = Bars {
        value: "throughput, slowest = 1".into(),
        group: String::new(),
        groups: results.iter().map(|r| r.model.clone()).collect(),
        series: inputs
            .systems
            .iter()
            .map(|s| BarSeries { name: s.name().to_owned(), bars: of(s.name()) })
            .collect(),
    };
    let figure = Figure {
        title: "Average performance".into(),
        caption: "Batches a second over the same batches, against the slowest system of each model. Lines: one standard \
                  deviation of the iteration time."
            .into(),
        svg: bars(&chart),
    };
    Ok((figure, serde_json::to_value(&chart.series)?))
}

fn relative(result: &ModelResult, own: &SystemResult) -> Bar {
    let done = result.systems.iter().filter(|s| s.failure.is_none());
    let slowest = done.map(|s| s.seconds().mean).fold(0.0, f64::max);
    let seconds = own.seconds();
    let value = slowest / seconds.mean;
    Bar { value, deviation: value * seconds.deviation / seconds.mean }
}
