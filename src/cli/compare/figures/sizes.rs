//! The best number of images in a sub-microbatch.

use std::sync::Arc;

use anyhow::{Context, Result};
use dip::emulate::report::charts::{Figure, Lines, Series, lines};
use dip::plan::ModuleId;
use dip::plan::systems::{Deployment, MemoryPolicy};
use dip::prelude::*;
use serde_json::Value;

use super::Inputs;

const MODEL: &str = "vlm-s";
/// Images of a sub-microbatch.
const SIZES: [u32; 10] = [2, 4, 6, 8, 10, 12, 16, 24, 32, 48];
/// The search, and fixed orders to compare it with.
const SCHEDULES: [&str; 3] = ["dip", "interleaved", "gpipe"];

pub fn draw(inputs: &Inputs<'_>) -> Result<(Figure, Value)> {
    let (contest, model) = (inputs.contest, inputs.model(MODEL)?);
    let cost = Arc::new(AnalyticCost::new(&model, contest.cluster));
    let planning = contest.planning(&model, &cost)?.with_weight_split(true);
    let batches = dip::emulate::sample(&model, inputs.iterations, contest.search.seed, None);
    let mut series = Vec::new();
    for name in SCHEDULES {
        let mut points = Vec::new();
        for size in SIZES {
            let partitioner = planning.partitioner().with_sub_microbatch(ModuleId(0), size);
            let deployment = Deployment {
                planning: planning.clone().with_partition(partitioner.partition()?),
                memory: vec![MemoryPolicy::Free],
                schedule: schedule_by_name(name).context("a schedule is missing")?.into(),
                choice: String::new(),
                evens_out: false,
            };
            let mut total = 0.0;
            for batch in &batches {
                let (plan, _) = contest.plan(&deployment, batch)?.map_err(anyhow::Error::msg)?;
                total += plan.predicted.makespan_s.0;
            }
            points.push((f64::from(size), total / batches.len().max(1) as f64));
        }
        series.push(Series { name: name.into(), points, steps: false });
    }
    let chart = Lines {
        x: "images of a sub-microbatch".into(),
        y: "seconds per iteration".into(),
        series,
        right: None,
        from_zero: false,
    };
    let figure = Figure {
        title: "Sub-microbatch size".into(),
        caption: format!(
            "{}: small sub-microbatches lose efficiency, large ones are hard to balance; the gap between a searched \
             order and a fixed one widens with the size.",
            model.name
        ),
        svg: lines(&chart),
    };
    let data: Vec<_> = chart.series.iter().map(|s| (&s.name, &s.points)).collect();
    Ok((figure, serde_json::to_value(data)?))
}
