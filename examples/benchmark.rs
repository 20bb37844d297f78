//! Measures the speed-up of a second rank, and whether memory grows.
//!
//! `cargo run --release --example benchmark` trains the same model on one rank and on two, in turns, and prints the tokens
//! per second of both; `-- memory` trains 500 iterations and prints the resident size at 50 and at 500.
//!
//! `-- steps cuda bf16 t2v-tiny 4` trains 4 iterations of a preset on one rank of a device, and nothing else: no profile, no
//! evaluation. The difference of two runs in a profiler gives the kernels, copies and waits of an iteration.

use dip::emulate::AnalyticCost;
use dip::plan::LayerStrategy;
use dip::prelude::*;
use dip::train::{Run, RunConfig, Training, resident_bytes};

/// Iterations that are not measured.
const WARM_UP: u64 = 5;

fn trainer(ranks: u32, iterations: u64) -> anyhow::Result<Box<dyn Training>> {
    let mut config = RunConfig::from_toml(include_str!("vlm-tiny.toml"))?;
    config.pipeline.ranks = ranks;
    config.iterations = iterations;
    config.output = format!("runs/benchmark-{ranks}").into();
    let model = presets::model(&config.model).expect("the preset is built in");
    Ok(Run::new(config, model).start()?)
}

fn scaling(iterations: u64) -> anyhow::Result<()> {
    let mut sides = [(1, trainer(1, iterations)?, 0.0, 0), (2, trainer(2, iterations)?, 0.0, 0)];
    for iteration in 0..iterations {
        for (_, trainer, seconds, tokens) in &mut sides {
            let report = trainer.step()?;
            if iteration >= WARM_UP {
                *seconds += report.elapsed_s.0;
                *tokens += report.tokens;
            }
        }
    }
    let speed = sides.map(|(ranks, _, seconds, tokens)| {
        let speed = tokens as f64 / seconds;
        println!("{ranks} ranks of one core: {speed:.0} tokens/s");
        speed
    });
    println!("two ranks reach {:.2}x the speed of one", speed[1] / speed[0]);
    Ok(())
}

fn memory() -> anyhow::Result<()> {
    let mut trainer = trainer(2, 500)?;
    while !trainer.is_done() {
        trainer.step()?;
        if matches!(trainer.iteration(), 50 | 100 | 200 | 300 | 400 | 500) {
            let resident = resident_bytes().unwrap_or_default();
            println!("iteration {:3}: {resident} resident", trainer.iteration());
        }
    }
    Ok(())
}

/// Trains `iterations` iterations, planned with the costs of a data sheet.
fn steps([device, precision, preset, iterations]: [&str; 4]) -> anyhow::Result<()> {
    let text = format!(
        "name = 'steps'\nmodel = '{preset}'\niterations = {iterations}\noutput = 'runs/steps'\n\
         pipeline = {{ device = '{device}', precision = '{precision}', ranks = 1, timed_every = 0 }}"
    );
    let config = RunConfig::from_toml(&text)?;
    let mut model = presets::model(preset).ok_or_else(|| anyhow::anyhow!("no preset {preset}"))?;
    config.adapt(&mut model)?;
    let cluster = presets::cluster("h100").expect("the preset is built in");
    let cost = AnalyticCost::new(&model, &cluster).with_strategies(&[LayerStrategy::Keep]);
    let mut training = Run::new(config, model).with_cost(cost).start()?;
    while !training.is_done() {
        let report = training.step()?;
        let (iteration, loss, elapsed) = (report.iteration, report.loss, report.elapsed_s);
        println!(
            "iteration {iteration}: loss {loss:.5}, {elapsed}, {} microbatches",
            report.microbatches
        );
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["steps", device, precision, preset, iterations] = arguments[..] {
        return steps([device, precision, preset, iterations]);
    }
    match arguments.first().copied() {
        Some("memory") => memory(),
        Some(n) => scaling(n.parse()?),
        None => scaling(60),
    }
}
