//! `dip evaluate`: the held-out loss of a finished run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use dip::train::{Evaluation, write_samples};

use super::trained;
use crate::cli::output::{Figures, JsonOutput};
use crate::cli::train::print_generated;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip evaluate run.toml
  dip evaluate run.toml --generate --json")]
pub struct Evaluate {
    /// The run that trained the model, a TOML file
    run: PathBuf,
    /// A checkpoint folder of the run, instead of the newest
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Also write captions, or clips into this folder
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, default_missing_value = "samples")]
    generate: Option<PathBuf>,
    #[command(flatten)]
    json: JsonOutput,
}

impl Figures for Evaluation {
    const SCHEMA: &'static str = "dip.evaluation/v1";
}

impl Evaluate {
    pub fn run(&self) -> Result<ExitCode> {
        let trained = trained(&self.run, self.checkpoint.clone())?;
        let mut model = trained.open()?;
        let Some(evaluation) = model.evaluate(self.generate.is_some())? else {
            bail!(
                "{}: the run has no held-out data; name some in data.held_out",
                self.run.display()
            );
        };
        if let Some(folder) = self.generate.as_ref().filter(|_| !evaluation.samples.is_empty()) {
            write_samples(folder, &evaluation.samples)?;
        }
        self.json.print(&evaluation, || {
            println!(
                "{} {:.4} after {} iterations",
                evaluation.what, evaluation.loss, evaluation.iteration
            );
            print_generated(&evaluation, self.generate.as_deref().unwrap_or(Path::new("")));
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
