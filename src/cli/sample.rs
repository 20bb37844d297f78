//! `dip sample`: batch metadata that resembles the paper's data sets, or that of a run's own data.

#[cfg(feature = "train")]
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dip::plan::BatchMeta;
#[cfg(feature = "train")]
use dip::train::{Run, microbatch_padding, microbatch_patches};

use super::files::write_whole;
use super::inputs;
#[cfg(feature = "train")]
use super::load::BatchLoad;

#[derive(Debug, Args)]
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
}

impl Sample {
    pub fn run(&self) -> Result<ExitCode> {
        let batches = self.batches()?;
        let text: String = batches.iter().map(BatchMeta::to_jsonl).collect();
        match &self.out {
            Some(path) => write_whole(path, text.as_bytes())?,
            None => print!("{text}"),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn batches(&self) -> Result<Vec<BatchMeta>> {
        #[cfg(feature = "train")]
        if let Some(run) = &self.run {
            return of_run(run, self.iterations);
        }
        let model = self.model.as_deref().context("--model is absent; give a model")?;
        let model = inputs::model(model)?;
        Ok(dip::emulate::sample(&model, self.iterations, self.seed, self.microbatches))
    }
}

/// The first batches of a run. Says on standard error how even and how full their microbatches are.
#[cfg(feature = "train")]
fn of_run(path: &Path, iterations: u64) -> Result<Vec<BatchMeta>> {
    let (config, model) = inputs::run(path)?;
    let mut data = Run::new(config, model.clone()).open()?;
    let (mut batches, mut load) = (Vec::new(), BatchLoad::default());
    for _ in 0..iterations {
        let batch = data.loader.next_batch(&mut |_| Vec::new())?;
        let padding = microbatch_padding(&model, &batch.meta, batch.tokens);
        load.add(&microbatch_patches(&model, &batch.meta), padding);
        batches.push(batch.meta);
    }
    if let Some(load) = load.describe() {
        eprintln!("{load}");
    }
    Ok(batches)
}
