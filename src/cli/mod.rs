//! One file for each subcommand. Results go to standard output, all else to standard error.

#[cfg(feature = "train")]
mod calibrate;
mod check;
mod compare;
mod doctor;
mod emulate;
mod explain;
#[cfg(feature = "train")]
mod export;
mod files;
#[cfg(feature = "train")]
mod index;
#[cfg(feature = "train")]
mod init;
mod inputs;
#[cfg(feature = "cuda")]
mod kernels;
#[cfg(feature = "train")]
mod merge;
mod noise;
mod output;
mod plan;
mod presets;
mod report;
mod sample;
mod schema;
mod search;
mod shell;
mod sizing;
mod spinner;
mod terminal;
mod throughput;
mod timeline;
#[cfg(feature = "train")]
mod train;
#[cfg(feature = "train")]
mod trained;
mod tune;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Shows an error; the exit code of a command that it ends.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    terminal::error(message(error));
    ExitCode::from(2)
}

/// An error and its causes. A cause that an error before it has quoted is left out.
fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Exit code of a command that Ctrl-C has ended.
const INTERRUPTED: u8 = 128 + 2;

/// Dynamic interleaved pipeline parallelism for large multimodal models.
#[derive(Debug, Parser)]
#[command(name = "dip", version, about)]
#[command(after_help = "\
Example:
  dip plan --model vlm-s --cluster h800 --out plan.json

Exit codes:
  0    done
  1    the answer is no, such as a plan with violations
  2    bad input, or a failure
  130  interrupted by Ctrl-C")]
pub struct Cli {
    #[command(flatten)]
    verbosity: terminal::Verbosity,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the built-in models, clusters and schedules
    Presets(presets::Presets),
    /// Draw batch metadata that resembles the paper's data sets
    Sample(sample::Sample),
    /// Plan one batch, or a given task graph
    Plan(plan::PlanCommand),
    /// List every violation of a plan, or say that there is none
    Check(check::Check),
    /// Run a plan in virtual time
    Emulate(emulate::Emulate),
    /// Say where the time of a plan or a measured iteration goes, and what would make it shorter
    Explain(explain::Explain),
    /// Draw plans and measured iterations as a page, a figure or a Perfetto trace
    Report(report::Report),
    /// Compare training systems in virtual time, on the same costs, memory and data
    Compare(compare::Compare),
    /// Find the fastest degrees of parallelism and layouts for a model on a number of devices
    Tune(tune::Tune),
    /// Measure operators on this machine and fit a cluster to them
    #[cfg(feature = "train")]
    Calibrate(calibrate::Calibrate),
    /// Look at a model and data, and write a run for them
    #[cfg(feature = "train")]
    Init(init::Init),
    /// Index shards, so that training plans batches without opening pictures
    #[cfg(feature = "train")]
    Index(index::Index),
    /// Train a model
    #[cfg(feature = "train")]
    Train(train::Train),
    /// Measure a trained model on the held-out data of its run
    #[cfg(feature = "train")]
    Evaluate(trained::Evaluate),
    /// Caption pictures with a trained vision-language model
    #[cfg(feature = "train")]
    Caption(trained::CaptionCommand),
    /// Make clips for captions with a trained text-to-video model
    #[cfg(feature = "train")]
    Generate(trained::Generate),
    /// Write a checkpoint in the layout of Hugging Face
    #[cfg(feature = "train")]
    Export(export::Export),
    /// Merge a low-rank adapter of PEFT into the weights of its model
    #[cfg(feature = "train")]
    Merge(merge::Merge),
    /// Look at what this machine and this build can do, and what a run needs of them
    Doctor(doctor::Doctor),
    /// Print the JSON Schema of a file, or the reference of its fields
    Schema(schema::SchemaCommand),
    /// Print the completions of a shell
    Completions(shell::Completions),
    /// Write man pages into a folder
    Man(shell::Man),
}

/// Commands that a build without the feature `train` lacks.
#[cfg(not(feature = "train"))]
const NEEDS_TRAINING: [&str; 9] =
    ["calibrate", "init", "index", "train", "export", "merge", "evaluate", "caption", "generate"];

impl Cli {
    /// Reads the arguments of the process. Ends it with a message if they are wrong.
    pub fn from_arguments() -> Self {
        #[cfg(not(feature = "train"))]
        if let Some(name) = std::env::args().nth(1)
            && NEEDS_TRAINING.contains(&name.as_str())
        {
            terminal::error(format_args!(
                "this dip was built without training, so it has no `{name}`; build it with the default features: cargo install \
                 --path ."
            ));
            std::process::exit(2);
        }
        Self::parse()
    }

    /// Runs the subcommand.
    pub fn run(self) -> Result<ExitCode> {
        self.verbosity.set();
        #[cfg(feature = "cuda")]
        kernels::watch();
        let code = self.run_command()?;
        #[cfg(feature = "cuda")]
        kernels::print_summary();
        Ok(code)
    }

    fn run_command(self) -> Result<ExitCode> {
        match self.command {
            Command::Presets(command) => command.run(),
            Command::Sample(command) => command.run(),
            Command::Plan(command) => command.run(),
            Command::Check(command) => command.run(),
            Command::Emulate(command) => command.run(),
            Command::Explain(command) => command.run(),
            Command::Report(command) => command.run(),
            Command::Compare(command) => command.run(),
            Command::Tune(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Calibrate(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Init(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Index(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Train(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Evaluate(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Caption(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Generate(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Export(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Merge(command) => command.run(),
            Command::Doctor(command) => command.run(),
            Command::Schema(command) => command.run(),
            Command::Completions(command) => command.run(),
            Command::Man(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_that_an_error_quotes_is_printed_once() {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no such file");
        let quoted = Err::<(), _>(missing()).context("a.json: no such file; check the path");
        let named = quoted.context("weights").unwrap_err();
        assert_eq!(message(&named), "weights: a.json: no such file; check the path");
        let plain = Err::<(), _>(missing()).context("a.json: cannot be opened").unwrap_err();
        assert_eq!(message(&plain), "a.json: cannot be opened: no such file");
    }
}
