//! `dip generate`: clips for captions.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use dip::train::write_samples;
use schemars::JsonSchema;
use serde::Serialize;

use super::From;
use crate::cli::output::{Figures, JsonOutput};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dip generate \"a red ring moves left\" --from examples/t2v-tiny.toml --out clips")]
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
    #[command(flatten)]
    json: JsonOutput,
}

/// What `dip generate` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ClipFigures {
    /// In the order of the command line.
    clips: Vec<Generated>,
}

/// A caption with its clip.
#[derive(Debug, Serialize, JsonSchema)]
struct Generated {
    caption: String,
    /// Its file.
    clip: PathBuf,
}

impl Figures for ClipFigures {
    const SCHEMA: &'static str = "dip.clips/v1";
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
        let clips = self.captions.iter().cloned().zip(files);
        let clips = clips.map(|(caption, clip)| Generated { caption, clip });
        let figures = ClipFigures { clips: clips.collect() };
        self.json.print(&figures, || {
            for Generated { caption, clip } in &figures.clips {
                println!("{caption}: {}", clip.display());
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
