//! The memory of rank 0 over one iteration.

use std::sync::Arc;

use anyhow::Result;
use dip::emulate::report::charts::{Figure, Lines, Series, lines};
use dip::emulate::{AnalyticCost, Executor, VirtualExecutor};
use dip::plan::Plan;
use serde_json::Value;

use super::Inputs;
use crate::cli::compare::contest::Contestant;

const MODEL: &str = "vlm-s";

pub fn draw(inputs: &Inputs<'_>) -> Result<(Figure, Value)> {
    let (contest, model) = (inputs.contest, inputs.model(MODEL)?);
    let cost = Arc::new(AnalyticCost::new(&model, contest.cluster));
    let (planning, history) = (contest.planning(&model, &cost)?, contest.history(&model));
    let for_systems = contest.inputs(&planning, &history);
    let mut series = Vec::new();
    for system in inputs.systems {
        let Contestant::Pipeline(system) = system else { continue };
        let Ok(deployment) = system.deploy(&for_systems) else { continue };
        for batch in dip::emulate::sample(&model, 1, contest.search.seed, None) {
            let Ok((plan, _)) = contest.plan(&deployment, &batch)? else { continue };
            let points = curve(&plan)?;
            series.push(Series { name: system.name().into(), points, steps: true });
        }
    }
    let chart = Lines {
        x: "seconds".into(),
        y: "memory of rank 0, GiB".into(),
        series,
        right: None,
        from_zero: true,
    };
    let figure = Figure {
        title: "Memory of rank 0".into(),
        caption: format!(
            "{}, one iteration: weights, gradients, optimiser state and live activations.",
            model.name
        ),
        svg: lines(&chart),
    };
    let data: Vec<_> = chart.series.iter().map(|s| (&s.name, &s.points)).collect();
    Ok((figure, serde_json::to_value(data)?))
}

/// Memory in GiB over time in seconds.
fn curve(plan: &Plan) -> Result<Vec<(f64, f64)>> {
    let trace = VirtualExecutor::default().execute(plan)?;
    let curves = dip::emulate::memory(&plan.graph, &trace);
    let points = curves.into_iter().next().map(|c| c.points).unwrap_or_default();
    let gib = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
    Ok(points.into_iter().map(|(time, bytes)| (time.0, gib(bytes.0))).collect())
}
