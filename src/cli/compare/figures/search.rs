//! The best plan over the time of the search.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use dip::emulate::report::charts::{Figure, Lines, Series, lines};
use dip::plan::systems::System as _;
use dip::plan::{SearchProgress, Seconds};
use dip::prelude::*;
use serde_json::Value;

use super::Inputs;

const MODEL: &str = "vlm-m";
const SEARCHES: [&str; 5] = ["dip", "dip-mcts", "dip-local", "dip-random", "dip-dfs"];
/// The budget of these searches, as a multiple of the comparison's budget.
const BUDGET_FACTOR: f64 = 5.0;

pub fn draw(inputs: &Inputs<'_>) -> Result<(Figure, Value)> {
    let (contest, model) = (inputs.contest, inputs.model(MODEL)?);
    let cost = Arc::new(AnalyticCost::new(&model, contest.cluster));
    let (planning, history) = (contest.planning(&model, &cost)?, contest.history(&model));
    let for_system = contest.inputs(&planning, &history);
    let deployment = dip::plan::systems::DipSystem.deploy(&for_system)?;
    let batch = dip::emulate::sample(&model, 1, contest.search.seed, None)
        .pop()
        .context("nothing sampled")?;
    let graph = deployment.graph(&deployment.memory[0], &batch)?;
    let mut environment = contest.environment();
    environment.budget = match environment.budget {
        Budget::Time(limit) => Budget::Time(limit * BUDGET_FACTOR),
        Budget::Iterations(n) => Budget::Iterations((n as f64 * BUDGET_FACTOR) as u64),
    };
    let mut series = Vec::new();
    for name in SEARCHES {
        let log = Log::default();
        let env = Environment { progress: Some(&log), ..environment };
        let start = std::time::Instant::now();
        let plan = schedule_by_name(name).context("a search is missing")?.plan(&graph, &env)?;
        let mut points = log.points.into_inner().unwrap_or_default();
        points.push((start.elapsed().as_secs_f64(), plan.predicted.makespan_s.0));
        series.push(Series { name: name.into(), points, steps: true });
    }
    let bound = lower_bound(&graph)?.0;
    let last = series.iter().flat_map(|s| &s.points).map(|p| p.0).fold(0.0, f64::max);
    series.push(Series {
        name: "proven bound".into(),
        points: vec![(0.0, bound), (last, bound)],
        steps: false,
    });
    let chart = Lines {
        x: "seconds of search".into(),
        y: "seconds per iteration".into(),
        series,
        right: None,
        from_zero: false,
    };
    let figure = Figure {
        title: "Search progress".into(),
        caption: format!(
            "{}, one batch, {} stages, {} threads: the best plan so far of this system's search and of the paper's \
             with four reorderers.",
            model.name,
            graph.tasks.len(),
            environment.threads
        ),
        svg: lines(&chart),
    };
    let data: Vec<_> = chart.series.iter().map(|s| (&s.name, &s.points)).collect();
    Ok((figure, serde_json::to_value(data)?))
}

/// Records every improvement.
#[derive(Default)]
struct Log {
    points: Mutex<Vec<(f64, f64)>>,
}

impl SearchProgress for Log {
    fn improved(&self, elapsed: Seconds, _: u64, makespan: Seconds) {
        if let Ok(mut points) = self.points.lock() {
            points.push((elapsed.0, makespan.0));
        }
    }
}
