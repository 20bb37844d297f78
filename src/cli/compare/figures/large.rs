//! Thousands of devices.

use anyhow::Result;
use dip::emulate::report::charts::{Bar, BarSeries, Bars, Figure, bars};
use dip::plan::ModelSpec;
use serde_json::Value;

use super::{Inputs, preset};
use crate::cli::compare::result::ModelResult;

/// Model, pipeline ranks and the name of the setup.
const SETUPS: [(&str, u32, &str); 4] = [
    ("vlm-xl", 8, "VLM-XL, 8,192"),
    ("vlm-xl", 16, "VLM-XL, 16,384"),
    ("t2v-xl", 4, "T2V-XL, 3,072"),
    ("t2v-xl", 8, "T2V-XL, 6,144"),
];

pub fn draw(inputs: &Inputs<'_>) -> Result<(Figure, Value)> {
    let mut results: Vec<ModelResult> = Vec::new();
    for (model, setup) in setups(inputs)? {
        let count = inputs.iterations.min(3);
        let batches = dip::emulate::sample(&model, count, inputs.contest.search.seed, None);
        let mut result = inputs.contest.run(&model, inputs.systems, &batches)?;
        result.model = setup;
        results.push(result);
    }
    let of = |name: &str| {
        let mfu = |r: &ModelResult| {
            let own = r.systems.iter().find(|s| s.system == name && s.failure.is_none())?;
            let spread = own.spread(|r| 100.0 * r.mfu);
            Some(Bar { value: spread.mean, deviation: spread.deviation })
        };
        results.iter().map(mfu).collect()
    };
    let chart = Bars {
        value: "model FLOPs utilisation, %".into(),
        group: "model, devices".into(),
        groups: results.iter().map(|r| r.model.clone()).collect(),
        series: inputs
            .systems
            .iter()
            .map(|s| BarSeries { name: s.name().to_owned(), bars: of(s.name()) })
            .collect(),
    };
    let figure = Figure {
        title: "Large scale".into(),
        caption: "One replica is emulated. Its time includes the sum of gradients over replicas at the end of the iteration, but no \
                  waiting for slower replicas."
            .into(),
        svg: bars(&chart),
    };
    Ok((figure, serde_json::to_value(&results)?))
}

/// The models of the command line at their own size, or else those of the paper, with their names in the figure.
fn setups(inputs: &Inputs<'_>) -> Result<Vec<(ModelSpec, String)>> {
    if let Some(models) = inputs.models {
        let named = |m: &ModelSpec| (m.clone(), format!("{}, {}", m.name, m.parallel.devices()));
        return Ok(models.iter().map(named).collect());
    }
    let of_paper = |(name, pipeline, setup): (&str, u32, &str)| {
        let mut model = preset(name)?;
        model.parallel.pipeline = pipeline;
        Ok((model, setup.to_owned()))
    };
    SETUPS.into_iter().map(of_paper).collect()
}
