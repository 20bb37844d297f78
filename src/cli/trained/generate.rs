//! `dip generate`: clips for captions.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use dip::train::write_samples;

use super::{From, print_json};

#[derive(Debug, Args)]
pub struct Generate {
    /// The captions
    #[arg(required = true, value_name = "CAPTION")]
    captions: Vec<String>,
    #[command(flatten)]
    from: From,
    /// The folder to write the clips to
    #[arg(long, default_value = "samples")]
    out: PathBuf,
    /// Seed of the noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Length of a clip in seconds, in place of the run's
    #[arg(long)]
    seconds: Option<f64>,
    /// Steps from noise to a clip, in place of the run's
    #[arg(long)]
    steps: Option<u32>,
    /// Scale of the guidance by the caption, in place of the run's
    #[arg(long)]
    guidance: Option<f64>,
    /// Print one line of JSON for each clip
    #[arg(long)]
    json: bool,
}

impl Generate {
    pub fn run(&self) -> Result<ExitCode> {
        let mut trained = self.from.trained()?;
        let evaluation = &mut trained.config.evaluation;
        evaluation.sample_seconds = self.seconds.unwrap_or(evaluation.sample_seconds);
        evaluation.sample_steps = self.steps.unwrap_or(evaluation.sample_steps);
        evaluation.guidance = self.guidance.unwrap_or(evaluation.guidance);
        trained.config.validate()?;
        let clips = trained.open()?.generate(&self.captions, self.seed)?;
        let files = write_samples(&self.out, &clips)?;
        for (caption, file) in self.captions.iter().zip(files) {
            match self.json {
                true => print_json(&serde_json::json!({ "caption": caption, "clip": file }))?,
                false => println!("{caption}: {}", file.display()),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
