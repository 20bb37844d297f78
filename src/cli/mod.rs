//! One file a subcommand. Exit codes: 0 done, 1 the plan has violations, 2 bad input.

mod check;
mod files;
mod inputs;
mod presets;
#[cfg(feature = "train")]
mod train;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Dynamic interleaved pipeline parallelism for large multimodal models.
#[derive(Debug, Parser)]
#[command(name = "dip", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists what is built in
    Presets(presets::Presets),
    /// Lists every violation of a plan, or says that there is none
    Check(check::Check),
    /// Trains a model
    #[cfg(feature = "train")]
    Train(train::Train),
}

impl Cli {
    /// Runs the subcommand.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Presets(command) => command.run(),
            Command::Check(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Train(command) => command.run(),
        }
    }
}
