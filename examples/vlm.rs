//! Trains the small vision-language model from the library, through the same calls as `dip train`.
//!
//! `cargo run --release --example vlm -- 200` trains 200 iterations.

use dip::prelude::*;
use dip::train::{IterationReport, MetricSink, Run, RunConfig, SinkError};

struct Print;

impl MetricSink for Print {
    fn iteration(&mut self, r: &IterationReport) -> Result<(), SinkError> {
        if r.iteration.is_multiple_of(10) {
            let (measured, planned) = (r.makespan_s, r.predicted_s);
            println!("{:5} loss {:.3}, {measured} (planned {planned})", r.iteration, r.loss);
        }
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let iterations = std::env::args().nth(1).map_or(Ok(200), |n| n.parse())?;
    let mut config = RunConfig::from_toml(include_str!("vlm-tiny.toml"))?;
    (config.iterations, config.output) = (iterations, "runs/vlm-example".into());
    let mut model = presets::model(&config.model).expect("the preset is built in");
    config.adapt(&mut model)?;

    // Opens the data, looks at the first batches, measures the stages, and places the layers.
    let mut training = Run::new(config, model.clone()).start()?;
    println!("layers: {}", training.partition().describe(&model));

    // Trains with a plan for every batch, searched while the batch before it trains.
    training.run(&mut Print)?;
    if let Some(evaluation) = training.evaluate(true)? {
        for caption in evaluation.captions {
            println!("{} | generated: {}", caption.expected, caption.generated);
        }
    }
    Ok(())
}
