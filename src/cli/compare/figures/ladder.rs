//! From Megatron-LM to this system, one part at a time.

use anyhow::Result;
use dip::emulate::report::charts::{Bar, BarSeries, Bars, Figure, bars};
use dip::plan::systems::LADDER;
use serde_json::Value;

use super::Inputs;
use crate::cli::compare::contest::Contestant;
use crate::cli::compare::result::{Spread, SystemResult};

const MODELS: [&str; 2] = ["vlm-s", "t2v-s"];

pub fn draw(inputs: &Inputs<'_>) -> Result<(Figure, Value)> {
    let steps: Vec<Contestant> =
        LADDER.iter().map(|&s| Contestant::Pipeline(Box::new(s))).collect();
    let mut series = Vec::new();
    for model in inputs.models(&MODELS)? {
        let batches =
            dip::emulate::sample(&model, inputs.iterations, inputs.contest.search.seed, None);
        let result = inputs.contest.run(&model, &steps, &batches)?;
        let bar = |s: &SystemResult| {
            s.failure.is_none().then(|| {
                let Spread { mean: value, deviation } = s.seconds();
                Bar { value, deviation }
            })
        };
        let bars = result.systems.iter().map(bar).collect();
        series.push(BarSeries { name: model.name.clone(), bars });
    }
    let chart = Bars {
        value: "seconds per iteration".into(),
        group: "each adds one part to the system on its left".into(),
        groups: steps.iter().map(|s| s.name().to_owned()).collect(),
        series,
    };
    let figure = Figure {
        title: "Ablation".into(),
        caption: "Modality-aware partitioner, dual-queue interleaving, reordering by tree search, memory strategies \
                  chosen for every stage, and last this system's search with split weight gradients."
            .into(),
        svg: bars(&chart),
    };
    Ok((figure, serde_json::to_value(&chart.series)?))
}
