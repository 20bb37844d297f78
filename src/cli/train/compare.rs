//! `dip train --compare`: one run under two schedules, which take turns iteration by iteration.

use std::process::ExitCode;

use anyhow::Result;
use dip::plan::{ModelSpec, Seconds};
use dip::train::{LoadFigures, Run, RunConfig, RunTotals, Training};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::{Figures, JsonOutput};

/// What `dip train --compare` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RaceFigures {
    /// The schedule of the run, and the other one.
    schedules: [SideFigures; 2],
}

/// The mean figures of the run under one schedule, after the first iterations.
#[derive(Debug, Serialize, JsonSchema)]
struct SideFigures {
    schedule: String,
    iteration_s: Seconds,
    /// Measured time of the stages.
    stages_s: Seconds,
    predicted_s: Seconds,
    /// Mean absolute error of the prediction, relative to the measured time.
    prediction_error: f64,
    bubble_ratio: f64,
    /// Excess of the stages over their critical path.
    overhead: f64,
    /// Share of the time spent waiting for plans.
    stall_ratio: f64,
    tokens_per_s: f64,
    last_loss: f64,
    /// Patches and padding of the microbatches; absent without pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<LoadFigures>,
}

impl Figures for RaceFigures {
    const SCHEMA: &'static str = "dip.train-compare/v1";
}

/// The run under one of the two schedules.
struct Side {
    schedule: String,
    trainer: Box<dyn Training>,
    totals: RunTotals,
    loss: f64,
}

/// Iterations before times are counted.
const WARM_UP: u64 = 5;

/// Trains both copies on the same batches from the same weights, and prints their times side by side.
pub fn compare(
    config: &RunConfig,
    model: &ModelSpec,
    other: &str,
    json: &JsonOutput,
) -> Result<ExitCode> {
    let side = |schedule: &str| -> Result<Side> {
        let mut config = config.clone();
        config.pipeline.schedule = schedule.to_owned();
        let trainer = Run::new(config, model.clone()).start()?;
        Ok(Side { schedule: schedule.into(), trainer, totals: RunTotals::default(), loss: 0.0 })
    };
    let mut sides = [side(&config.pipeline.schedule)?, side(other)?];
    for iteration in 0..config.iterations {
        // The two take turns to run first.
        let first = (iteration % 2) as usize;
        for i in [first, 1 - first] {
            let report = sides[i].trainer.step()?;
            sides[i].loss = report.loss;
            if iteration >= WARM_UP {
                sides[i].totals.add(&report);
            }
        }
    }
    let figures = RaceFigures { schedules: sides.each_ref().map(SideFigures::from) };
    json.print(&figures, || figures.print())?;
    Ok(ExitCode::SUCCESS)
}

impl From<&Side> for SideFigures {
    fn from(side: &Side) -> Self {
        let t = &side.totals;
        Self {
            schedule: side.schedule.clone(),
            iteration_s: Seconds(t.mean(t.elapsed_s)),
            stages_s: Seconds(t.timed_mean(t.makespan_s)),
            predicted_s: Seconds(t.timed_mean(t.predicted_s)),
            prediction_error: t.prediction_error(),
            bubble_ratio: t.timed_mean(t.bubble),
            overhead: t.overhead(),
            stall_ratio: t.stall_ratio(),
            tokens_per_s: t.tokens_per_s(),
            last_loss: side.loss,
            load: t.load.figures(t.elapsed_s),
        }
    }
}

impl RaceFigures {
    fn print(&self) {
        println!(
            "{:14} {:>10} {:>10} {:>10} {:>8} {:>8} {:>9} {:>8} {:>10}",
            "schedule",
            "iteration",
            "stages",
            "predicted",
            "error",
            "bubble",
            "overhead",
            "stall",
            "last loss"
        );
        for s in &self.schedules {
            println!(
                "{:14} {:>7.2} ms {:>7.2} ms {:>7.2} ms {:>6.1} % {:>6.1} % {:>7.2} % {:>6.2} % {:>10.5}",
                s.schedule,
                1e3 * s.iteration_s.0,
                1e3 * s.stages_s.0,
                1e3 * s.predicted_s.0,
                100.0 * s.prediction_error,
                100.0 * s.bubble_ratio,
                100.0 * s.overhead,
                100.0 * s.stall_ratio,
                s.last_loss
            );
        }
        let [ours, theirs] = &self.schedules;
        if let Some(load) = &ours.load {
            println!("{}: {:.0} tokens/s, {load}", ours.schedule, ours.tokens_per_s);
        }
        println!(
            "{} takes {:.3} of the time of {} (stages {:.3}, predicted {:.3})",
            ours.schedule,
            ours.iteration_s / theirs.iteration_s,
            theirs.schedule,
            ours.stages_s / theirs.stages_s,
            ours.predicted_s / theirs.predicted_s
        );
    }
}
