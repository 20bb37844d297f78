//! Measures the speed-up of a second rank, and whether memory grows.
//!
//! `cargo run --release --example benchmark` trains the same model on one rank and on two, in turns, and prints the tokens
//! per second of both; `-- memory` trains 500 iterations and prints the resident size at 50 and at 500.

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

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("memory") => memory(),
        Some(n) => scaling(n.parse()?),
        None => scaling(60),
    }
}
