//! Iteration times while the share of images rises and falls.

use anyhow::Result;
use dip::emulate::report::charts::{Figure, Lines, Series, lines};
use dip::plan::{BatchMeta, MicrobatchMeta};
use serde_json::{Value, json};

use super::Inputs;

/// The model of the paper's figure.
const MODEL: &str = "vlm-s";
/// Its iterations.
const ITERATIONS: u64 = 40;

pub fn draw(inputs: &Inputs<'_>) -> Result<(Figure, Value)> {
    let model = inputs.model(MODEL)?;
    let batches = dip::emulate::sweep(&model, ITERATIONS, inputs.contest.search.seed, None);
    let history = inputs.contest.swept_history(&model);
    let result = inputs.contest.run_after(&history, &model, inputs.systems, &batches)?;
    let at = |i: usize, y: f64| (i as f64, y);
    let series = result.systems.iter().map(|system| Series {
        name: system.system.clone(),
        points: system.records.iter().enumerate().map(|(i, r)| at(i, r.seconds.0)).collect(),
        steps: false,
    });
    let has_images = batches.iter().flat_map(|b| &b.microbatches).any(|m| !m.images.is_empty());
    let load_of = if has_images { "images" } else { "seconds of video and sound" };
    let of = |m: &MicrobatchMeta| {
        if has_images {
            f64::from(m.images.len())
        } else {
            video(m) + m.audio_seconds.iter().sum::<f64>()
        }
    };
    let total = |b: &BatchMeta| b.microbatches.iter().map(of).sum::<f64>();
    let load: Vec<(f64, f64)> = batches.iter().enumerate().map(|(i, b)| at(i, total(b))).collect();
    let chart = Lines {
        x: "iteration".into(),
        y: "seconds per iteration".into(),
        series: series.collect(),
        right: Some(Series { name: load_of.into(), points: load.clone(), steps: false }),
        from_zero: true,
    };
    let figure = Figure {
        title: "Dynamic workload".into(),
        caption: format!(
            "{}, {ITERATIONS} iterations from the lightest batches to the heaviest and back. Systems that decide before \
             training do so for a light, a medium and a heavy batch.",
            model.name
        ),
        svg: lines(&chart),
    };
    Ok((figure, json!({ "load": load, "load_of": load_of, "result": result })))
}

/// The seconds of all clips of a microbatch.
fn video(microbatch: &MicrobatchMeta) -> f64 {
    microbatch.clips.iter().map(|clip| clip.seconds).sum()
}
