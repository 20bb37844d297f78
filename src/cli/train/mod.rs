//! `dip train`: trains the model of a run file.

mod compare;
mod generated;
mod panel;
mod processes;
mod progress;
mod signals;
mod trend;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use dip::plan::ModelSpec;
use dip::train::runtime::transport::TransportGroup;
use dip::train::runtime::{ProcessGroup, SingleProcess};
use dip::train::{Device, OutputLock, Resumed, Run, RunConfig, StopRequest, checkpoint};

use super::output::JsonOutput;
use super::spinner::Spinner;
use super::{inputs, sizing, terminal};
pub use compare::RaceFigures;
pub use generated::print_generated;
use progress::Progress;
use signals::Signals;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip train examples/vlm-tiny.toml
  dip train run.toml --resume --trace 100..110
  dip train run.toml --json | jq .tokens_per_s

SIGTERM and Ctrl-C finish the iteration, write a checkpoint and end with code 0 or 130")]
pub struct Train {
    /// The run, a TOML file
    run: PathBuf,
    /// Resume from the newest checkpoint of the run, or start anew if there is none
    #[arg(long, conflicts_with = "restart")]
    resume: bool,
    /// Remove the checkpoints of an earlier run from the output folder, and start anew
    #[arg(long)]
    restart: bool,
    /// Train a second copy under this schedule, in turns with the first, and compare their times
    #[arg(long, value_name = "SCHEDULE", conflicts_with_all = ["resume", "restart"])]
    compare: Option<String>,
    /// Iterations of the run, in place of the file's
    #[arg(long)]
    iterations: Option<u64>,
    /// Folder for checkpoints, profile and metrics, in place of the file's
    #[arg(long)]
    output: Option<PathBuf>,
    /// Write the measured timelines of these iterations to the folder `traces` of the output, for `dip report`
    #[arg(long, value_name = "FROM..TO", value_parser = iterations)]
    trace: Option<(u64, u64)>,
    /// Print the run with all settings that the file leaves out, as TOML, and end
    #[arg(long)]
    show_defaults: bool,
    #[command(flatten)]
    json: JsonOutput,
}

impl Train {
    pub fn run(&self) -> Result<ExitCode> {
        let shown = self.run.display().to_string();
        let (mut config, model) = inputs::run(&self.run)?;
        config.iterations = self.iterations.unwrap_or(config.iterations);
        config.output = self.output.clone().unwrap_or(config.output);
        config.metrics.trace = self.trace.or(config.metrics.trace);
        config.validate().with_context(|| shown)?;
        if self.show_defaults {
            print!("{}", toml::to_string(&config).context("the run has no TOML form")?);
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(other) = &self.compare {
            processes::refuse("--compare trains in one process")?;
            return compare::compare(&config, &model, other, &self.json);
        }
        match processes::join()? {
            None => self.train(Run::new(config, model), &SingleProcess),
            Some(transport) => {
                let group = Arc::new(TransportGroup::new(transport.clone()));
                let joined: &dyn ProcessGroup = &*group;
                let run = Run::new(config, model).over(transport.clone(), group.clone());
                let ended = joined.take_part(|| self.train(run, joined));
                // The error is shown before this process waits for the others to end.
                Ok(ended.unwrap_or_else(|error| crate::cli::fail(&error)))
            }
        }
    }

    fn train(&self, mut run: Run, group: &dyn ProcessGroup) -> Result<ExitCode> {
        let (config, model) = (run.config().clone(), run.model().clone());
        group.agree("--resume", || self.resume.to_string())?;
        let is_first = group.is_first();
        if is_first {
            run = run.with_lock(OutputLock::acquire(&config.output)?);
            self.make_room(&config)?;
        }
        let say = |text: String| self.json.say(text);
        describe(&config, &model).into_iter().for_each(say);
        say("reading data, measuring stages and placing layers ..".into());
        let stop = StopRequest::default();
        let spinner = Spinner::start("reading, measuring and placing");
        let mut trainer = run.with_stop(stop.clone()).start()?;
        drop(spinner);
        say(format!("layers: {}", trainer.partition().describe(&model)));
        sizing::warn_empty_ranks(trainer.partition());
        warn_threads(&config, group.size());
        if self.resume {
            match trainer.resume()? {
                Some(Resumed { damaged, .. }) => {
                    damaged.iter().for_each(terminal::warn);
                    say(format!("resuming after iteration {}", trainer.iteration()));
                }
                None => {
                    say(format!("no checkpoint in {}, starting anew", config.output.display()));
                }
            }
        }
        let progress = || Progress::new(&config, trainer.iteration(), self.json.clone());
        let mut progress = is_first.then(progress);
        let lines = progress.as_ref().map(Progress::lines).unwrap_or_default();
        // Before, there is nothing to save, and signals end the process at once.
        let signals = Signals::stop(&stop, lines).context("signals cannot be handled")?;
        match &mut progress {
            Some(progress) => {
                trainer.run(progress)?;
                progress.finish()?;
            }
            None => {
                trainer.run(&mut ())?;
                say(format!("{}: trained to iteration {}", config.name, trainer.iteration()));
            }
        }
        if trainer.is_done() {
            return Ok(ExitCode::SUCCESS);
        }
        say(format!("stopped after iteration {}; continue with --resume", trainer.iteration()));
        Ok(signals.exit_code().into())
    }

    /// Makes sure that a run does not mix its checkpoints with the checkpoints of an earlier run.
    fn make_room(&self, config: &RunConfig) -> Result<()> {
        let folder = config.output.display();
        let found = checkpoint::list(&config.output)?;
        if found.is_empty() || self.resume {
            return Ok(());
        }
        if !self.restart {
            bail!(
                "{folder} has {} checkpoints of an earlier run; continue it with --resume, remove them with --restart, or \
                 choose another output",
                found.len()
            );
        }
        for path in found {
            std::fs::remove_dir_all(&path)
                .with_context(|| format!("{}: cannot be removed", path.display()))?;
        }
        Ok(())
    }
}

/// Warns of more rank threads in a process than it has cores, on the CPU: they take turns.
fn warn_threads(config: &RunConfig, processes: usize) {
    let cores = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
    let threads = config.pipeline.ranks as usize * config.pipeline.replicas as usize;
    let threads = threads.div_ceil(processes);
    if config.pipeline.device == Device::Cpu && threads > cores {
        terminal::warn(format!(
            "{threads} threads (pipeline.ranks = {}, pipeline.replicas = {}) share {cores} cores and take turns, so that measured \
             stages are slower than alone",
            config.pipeline.ranks, config.pipeline.replicas
        ));
    }
}

/// Parses `100..110`, or `100` for one iteration.
fn iterations(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| text.trim().parse::<u64>().map_err(|e| format!("{text:?}: {e}"));
    let (from, to) = match text.split_once("..") {
        Some((from, to)) => (number(from)?, number(to)?),
        None => (number(text)?, number(text)?.saturating_add(1)),
    };
    if from >= to {
        return Err(format!("{from}..{to} has no iteration; the second number must be larger"));
    }
    Ok((from, to))
}

/// The settings of the run, one line each.
fn describe(config: &RunConfig, model: &ModelSpec) -> Vec<String> {
    let replicas = config.pipeline.replicas;
    let mut lines = vec![format!(
        "{}: {} on {replicas} {} of {} ranks, schedule {}, {} iterations, output in {}",
        config.name,
        model.name,
        if replicas == 1 { "replica" } else { "replicas" },
        config.pipeline.ranks,
        config.pipeline.schedule,
        config.iterations,
        config.output.display()
    )];
    lines.push(match &config.weights {
        Some(weights) => format!("weights from {}", weights.from.display()),
        None => format!("weights drawn from seed {}", config.seed),
    });
    if config.assumes_native(model).unwrap_or(false) {
        lines.push(
            "pictures keep their proportions, as in Qwen2-VL: the model has no preprocessor_config.json; for squares, set \
             sequence.image_px"
                .into(),
        );
    }
    if let Ok(Some(tokenizer)) = config.tokenizer() {
        lines.push(format!("tokens of {}", tokenizer.display()));
    }
    lines
}
