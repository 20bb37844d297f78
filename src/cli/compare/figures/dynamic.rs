//! Iteration times while the share of images rises and falls.

use anyhow::Result;
use dip::emulate::report::charts::{Figure, Lines, Series, lines};
use serde_json::{Value, json};

use super::{Inputs, preset};

/// The model of the paper's figure.
const MODEL: &str = "vlm-s";
/// Its iterations.
const ITERATIONS: u64 = 40;

pub fn draw(inputs: &Inputs<'_>) -> Result<(Figure, Value)> {
    let model = preset(MODEL)?;
    let batches = dip::emulate::sweep(&model, ITERATIONS, inputs.contest.seed, None);
    let history = inputs.contest.swept_history(&model);
    let result = inputs.contest.run_after(&history, &model, inputs.systems, &batches)?;
    let at = |i: usize, y: f64| (i as f64, y);
    let series = result.systems.iter().map(|system| Series {
        name: system.system.clone(),
        points: system.records.iter().enumerate().map(|(i, r)| at(i, r.seconds.0)).collect(),
        steps: false,
    });
    let images =
        |b: &dip::plan::BatchMeta| b.microbatches.iter().map(|m| m.images.len()).sum::<u32>();
    let load: Vec<(f64, f64)> =
        batches.iter().enumerate().map(|(i, b)| at(i, f64::from(images(b)))).collect();
    let chart = Lines {
        x: "iteration".into(),
        y: "seconds per iteration".into(),
        series: series.collect(),
        right: Some(Series { name: "images".into(), points: load.clone(), steps: false }),
        from_zero: true,
    };
    let figure = Figure {
        title: "Dynamic workload".into(),
        caption: format!(
            "{MODEL}, {ITERATIONS} iterations from text only to image-heavy and back. Systems that decide before \
             training do so for a text-only, a medium and an image-heavy batch."
        ),
        svg: lines(&chart),
    };
    Ok((figure, json!({ "images": load, "result": result })))
}
