//! `dip train --compare`: one run under two schedules, which take turns iteration by iteration.

use std::process::ExitCode;

use anyhow::Result;
use dip::plan::ModelSpec;
use dip::train::{Run, RunConfig, Training};

use super::progress::Totals;

/// The run under one of the two schedules.
struct Side {
    schedule: String,
    trainer: Box<dyn Training>,
    totals: Totals,
    loss: f64,
}

/// Iterations before times are counted.
const WARM_UP: u64 = 5;

/// Trains both copies on the same batches from the same weights, and prints their times side by side.
pub fn compare(config: &RunConfig, model: &ModelSpec, other: &str) -> Result<ExitCode> {
    let side = |schedule: &str| -> Result<Side> {
        let mut config = config.clone();
        config.pipeline.schedule = schedule.to_owned();
        let trainer = Run::new(config, model.clone()).start()?;
        Ok(Side { schedule: schedule.into(), trainer, totals: Totals::default(), loss: 0.0 })
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
    for s in &sides {
        let t = &s.totals;
        println!(
            "{:14} {:>7.2} ms {:>7.2} ms {:>7.2} ms {:>6.1} % {:>6.1} % {:>7.2} % {:>6.2} % {:>10.5}",
            s.schedule,
            1e3 * t.mean(t.elapsed_s),
            1e3 * t.timed_mean(t.makespan_s),
            1e3 * t.timed_mean(t.predicted_s),
            t.error_percent(),
            100.0 * t.timed_mean(t.bubble),
            t.overhead_percent(),
            t.stall_percent(),
            s.loss
        );
    }
    let [ours, theirs] = &sides;
    let Totals { load, elapsed_s, .. } = ours.totals;
    if let Some(shown) = load.describe() {
        let (tokens, patches) = (ours.totals.tokens_per_s(), load.patches_per_s(elapsed_s));
        println!("{}: {tokens:.0} tokens/s, {patches:.0} patches/s, {shown}", ours.schedule);
    }
    println!(
        "{} takes {:.3} of the time of {} (stages {:.3}, predicted {:.3})",
        ours.schedule,
        ours.totals.elapsed_s / theirs.totals.elapsed_s,
        theirs.schedule,
        ours.totals.makespan_s / theirs.totals.makespan_s,
        ours.totals.predicted_s / theirs.totals.predicted_s
    );
    Ok(ExitCode::SUCCESS)
}
