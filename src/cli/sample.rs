//! `dip sample`: batch metadata that resembles the paper's data sets, or that of a run's own data.

use std::fmt;
#[cfg(feature = "train")]
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use dip::plan::BatchMeta;
#[cfg(feature = "train")]
use dip::train::{BatchLoad, LoadFigures, Run, microbatch_padding, microbatch_patches};
use schemars::JsonSchema;
use serde::Serialize;

use super::files::write_whole;
use super::inputs;
use super::output::{Figures, JsonOutput};
use super::terminal;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip sample --model vlm-m --iterations 3 --seed 1 --out batches.jsonl
  dip sample --model t2v-s | head -2")]
pub struct Sample {
    /// A model preset, a model TOML, or a Hugging Face config.json or folder: gives the modalities and the size of a microbatch
    #[arg(long)]
    #[cfg_attr(feature = "train", arg(required_unless_present = "run"))]
    model: Option<String>,
    /// A run, a TOML file: its own first batches, read and packed as in training
    #[cfg(feature = "train")]
    #[arg(long, conflicts_with_all = ["model", "microbatches", "seed"])]
    run: Option<PathBuf>,
    /// Iterations to draw
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    iterations: u64,
    /// Microbatches of one iteration; by default the model's
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    microbatches: Option<u32>,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write JSON Lines to this file, instead of standard output
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    json: JsonOutput,
}

/// What the sampled batches hold in all.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct SampleFigures {
    iterations: usize,
    microbatches: usize,
    images: u64,
    text_tokens: u64,
    sounds: usize,
    clips: usize,
    /// Patches and padding of the microbatches of a run's own data.
    #[cfg(feature = "train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<LoadFigures>,
}

impl Figures for SampleFigures {
    const SCHEMA: &'static str = "dip.sample/v1";
}

impl Sample {
    pub fn run(&self) -> Result<ExitCode> {
        if self.json.is_alone() && self.out.is_none() {
            bail!(
                "--json prints figures in place of the batches; give the batches a file with --out"
            );
        }
        let (batches, figures) = self.batches()?;
        let text: String = batches.iter().map(BatchMeta::to_jsonl).collect();
        match &self.out {
            Some(path) => write_whole(path, text.as_bytes())?,
            None => print!("{text}"),
        }
        self.json.print(&figures, || match &self.out {
            Some(path) => self.json.say(format!("{figures}, in {}", path.display())),
            None => terminal::progress(&figures),
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn batches(&self) -> Result<(Vec<BatchMeta>, SampleFigures)> {
        #[cfg(feature = "train")]
        if let Some(run) = &self.run {
            return of_run(run, self.iterations);
        }
        let model = self.model.as_deref().context("--model is absent; give a model")?;
        let model = inputs::model(model)?;
        let batches = dip::emulate::sample(&model, self.iterations, self.seed, self.microbatches);
        let figures = SampleFigures::of(&batches);
        Ok((batches, figures))
    }
}

impl SampleFigures {
    fn of(batches: &[BatchMeta]) -> Self {
        let mut figures = Self { iterations: batches.len(), ..Self::default() };
        for microbatch in batches.iter().flat_map(|batch| &batch.microbatches) {
            figures.microbatches += 1;
            figures.images += u64::from(microbatch.images.len());
            figures.text_tokens += u64::from(microbatch.text_tokens);
            figures.sounds += microbatch.audio_seconds.len();
            figures.clips += microbatch.clips.len();
        }
        figures
    }
}

impl fmt::Display for SampleFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iterations, microbatches, images, text_tokens, sounds, clips, .. } = self;
        write!(f, "{iterations} iterations of {microbatches} microbatches in all")?;
        for (count, what) in [
            (*images, "images"),
            (*text_tokens, "text tokens"),
            (*sounds as u64, "sounds"),
            (*clips as u64, "clips"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        #[cfg(feature = "train")]
        if let Some(load) = &self.load {
            write!(f, "; {load}")?;
        }
        Ok(())
    }
}

/// The first batches of a run, and how even and how full their microbatches are.
#[cfg(feature = "train")]
fn of_run(path: &Path, iterations: u64) -> Result<(Vec<BatchMeta>, SampleFigures)> {
    let (config, model) = inputs::run(path)?;
    let mut data = Run::new(config, model.clone()).open()?;
    let (mut batches, mut load) = (Vec::new(), BatchLoad::default());
    for _ in 0..iterations {
        let batch = data.loader.next_batch(&mut |_| Vec::new())?;
        let padding = microbatch_padding(&model, &batch.meta, batch.tokens);
        load.add(&microbatch_patches(&model, &batch.meta), padding);
        batches.push(batch.meta);
    }
    let figures = SampleFigures { load: load.figures(0.0), ..SampleFigures::of(&batches) };
    Ok((batches, figures))
}
