//! `dip sample`: draws batch metadata that resembles the paper's data sets.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::files::write_whole;
use super::inputs;

#[derive(Debug, Args)]
pub struct Sample {
    /// A model preset, a model TOML, or a Hugging Face config.json or folder: gives the modalities and the size of a microbatch
    #[arg(long)]
    model: String,
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
        let model = inputs::model(&self.model)?;
        let batches = dip::emulate::sample(&model, self.iterations, self.seed, self.microbatches);
        let text: String = batches.iter().map(dip::plan::BatchMeta::to_jsonl).collect();
        match &self.out {
            Some(path) => write_whole(path, text.as_bytes())?,
            None => print!("{text}"),
        }
        Ok(ExitCode::SUCCESS)
    }
}
