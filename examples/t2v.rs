//! Trains the small text-to-video model from the library and draws a clip for your caption.
//!
//! `cargo run --release --example t2v -- 200 "a purple ring moves up"` trains 200 iterations.

use dip::prelude::*;
use dip::train::data::{LatentShape, Tokenizer, caption_tokens};
use dip::train::inference::{ClipPrompt, Sampler};
use dip::train::{
    ClipGrid, IterationReport, MetricSink, Run, RunConfig, SampledClip, SinkError, write_samples,
};

struct Print;

impl MetricSink for Print {
    fn iteration(&mut self, r: &IterationReport) -> Result<(), SinkError> {
        if r.iteration.is_multiple_of(10) {
            println!("{:5} loss {:.3}, {} clips, {}", r.iteration, r.loss, r.clips, r.elapsed_s);
        }
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let iterations = arguments.next().map_or(Ok(200), |n| n.parse())?;
    let caption = arguments.next().unwrap_or_else(|| "a red ring moves left".into());
    let mut config = RunConfig::from_toml(include_str!("t2v-tiny.toml"))?;
    (config.iterations, config.output) = (iterations, "runs/t2v-example".into());
    let model = presets::model("t2v-tiny").expect("the preset is built in");

    // Measures costs, places layers and plans every batch, as `dip train` does.
    let mut training = Run::new(config.clone(), model.clone()).start()?;
    training.run(&mut Print)?;

    // A clip of six frames of 16 x 16 pixels, from noise.
    let shape = LatentShape::of(&model).expect("the model has clips");
    let tokenizer = Tokenizer::bytes();
    let tokens = |text: &str| caption_tokens(&tokenizer, text, 40);
    let sampler = Sampler {
        steps: 32,
        guidance: 3.0,
        shift: 3.0,
        values: shape.values as usize,
        empty: tokens("")?,
    };
    let grid = ClipGrid { frames: 6, rows: 4, columns: 4 };
    let prompt = ClipPrompt { caption: tokens(&caption)?, grid };
    let clips = training.model()?.sample(&sampler, &[prompt], 0)?;
    let sample = |latents| SampledClip { caption: caption.clone(), seen: None, latents, shape };
    let folder = config.output.join("mine");
    write_samples(&folder, &clips.into_iter().map(sample).collect::<Vec<_>>())?;
    println!("{caption}: {}", folder.join("00.gif").display());
    Ok(())
}
