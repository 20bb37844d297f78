//! `dip tune`: the fastest degrees of parallelism and layouts for a model on a number of devices.

mod table;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use dip::emulate::{GradientOverlap, Replicas};
use dip::plan::{Parallelism, Seconds};
use dip::tune::{Setup, TuneProgress, TuneReport, TuneSettings, tune};
use schemars::JsonSchema;
use serde::Serialize;

use super::inputs;
use super::output::{Figures, JsonOutput};
use super::search::{self, SearchArgs};
use super::{INTERRUPTED, terminal};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dip tune --model vlm-m --cluster h800 --devices 64 --microbatches 128")]
pub struct Tune {
    /// A model preset, a model TOML, or a Hugging Face config.json or folder
    #[arg(long)]
    model: String,
    /// A cluster preset or a cluster TOML
    #[arg(long, default_value = "h800")]
    cluster: String,
    /// Devices of the run; by default all of the cluster
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    devices: Option<u32>,
    /// Microbatches of a step over all replicas; by default 2 a device, at least those of the model and at most 512
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    microbatches: Option<u32>,
    /// Share of a device's memory that plans leave free, for the driver, communication buffers and fragments
    #[arg(long, default_value_t = 0.06)]
    reserve: f64,
    /// Never move activations to host memory
    #[arg(long)]
    no_offload: bool,
    /// Hold the whole optimiser state on every replica, instead of a share (ZeRO-1)
    #[arg(long)]
    no_shard: bool,
    /// When replicas sum gradients
    #[arg(long, value_enum, default_value = "chunks")]
    overlap: Overlap,
    /// Setups to list
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    keep: u16,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    json: JsonOutput,
}

/// What `dip tune` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TuneFigures<'a>(&'a TuneReport);

impl Figures for TuneFigures<'_> {
    const SCHEMA: &'static str = "dip.tune/v1";
}

/// When replicas sum gradients.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Overlap {
    /// After the pipeline
    None,
    /// Those of a chunk when its last backward has ended, as `dip train` does
    Chunks,
    /// Those of a layer when its last backward has ended, as frameworks with buckets do
    Layers,
}

impl From<Overlap> for GradientOverlap {
    fn from(overlap: Overlap) -> Self {
        match overlap {
            Overlap::None => Self::None,
            Overlap::Chunks => Self::Chunks,
            Overlap::Layers => Self::Layers,
        }
    }
}

impl Tune {
    pub fn run(&self) -> Result<ExitCode> {
        let model = inputs::model(&self.model)?;
        let cluster = inputs::cluster(&self.cluster)?;
        let settings = self.settings(model.microbatches, cluster.devices())?;
        let cancel = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGINT, cancel.clone())
            .context("Ctrl-C cannot be handled")?;
        let mut lines = Lines { start: Instant::now(), left: 0, best: None };
        let report = tune(&model, &cluster, &settings, &mut lines, &cancel)?;
        let print = || print!("{}", table::text(&report, &model, &self.places()));
        self.json.print(&TuneFigures(&report), print)?;
        if report.setups.is_empty() && report.complete {
            bail!("{}", nothing_fits(&report, &self.cluster));
        }
        Ok(if report.complete { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
    }

    fn settings(&self, microbatches: u32, available: u64) -> Result<TuneSettings> {
        if !(0.0..1.0).contains(&self.reserve) {
            bail!(
                "--reserve is {}, but must be at least 0 and below 1; 0.06 keeps 6 % free",
                self.reserve
            );
        }
        let devices = self.devices.unwrap_or(u32::try_from(available).unwrap_or(u32::MAX));
        let usual = devices.saturating_mul(MICROBATCHES_PER_DEVICE).max(microbatches);
        let env = self.search.environment(search::OF_MANY);
        Ok(TuneSettings {
            devices,
            microbatches: self.microbatches.unwrap_or(usual.min(MAX_USUAL_MICROBATCHES)),
            reserve: self.reserve,
            replicas: Replicas {
                sharded: !self.no_shard,
                overlap: self.overlap.into(),
                ..Replicas::default()
            },
            offload: !self.no_offload,
            budget: env.budget,
            threads: env.threads,
            seed: env.seed,
            keep: self.keep.into(),
        })
    }

    /// The arguments that name model and cluster, for the commands to go on with.
    fn places(&self) -> String {
        let (model, cluster) = (shell(&self.model), shell(&self.cluster));
        format!("--model {model} --cluster {cluster} --reserve {}", self.reserve)
    }
}

/// The usual number of microbatches of a step.
const MICROBATCHES_PER_DEVICE: u32 = 2;
/// The most that are taken without being asked for; more make searches slow.
const MAX_USUAL_MICROBATCHES: u32 = 512;

/// A word as a shell reads it.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn nothing_fits(report: &TuneReport, cluster: &str) -> String {
    format!(
        "{} fits {} devices of {cluster} in none of {} degrees of parallelism, with {} of each device kept free; raise --devices, lower \
         --reserve, or take devices with more device.memory_bytes",
        report.model,
        report.devices,
        report.do_not_fit.len(),
        report.reserve
    )
}

/// One line for every emulated setup, on standard error.
struct Lines {
    start: Instant,
    left: usize,
    best: Option<Seconds>,
}

impl Lines {
    fn say(&mut self, parallel: Parallelism, seconds: Option<Seconds>) {
        let Parallelism { data, tensor, pipeline } = parallel;
        let found = seconds.map_or_else(|| "does not fit".to_owned(), |s| s.to_string());
        if let Some(seconds) = seconds {
            self.best = Some(self.best.map_or(seconds, |best| best.min(seconds)));
        }
        let best = self.best.map_or_else(|| "none".to_owned(), |best| best.to_string());
        terminal::progress(format!(
            "{:>4.0} s  data {data:<4} tensor {tensor:<3} pipeline {pipeline:<3} step {found:<13} best {best}, at most {} to go",
            self.start.elapsed().as_secs_f64(),
            self.left
        ));
    }
}

impl TuneProgress for Lines {
    fn degrees(&mut self, count: usize) {
        self.left = count;
        terminal::progress(format!(
            "{count} degrees of parallelism may fit; each is searched, best bound first"
        ));
    }

    fn emulated(&mut self, parallel: Parallelism, setup: Option<&Setup>) {
        self.left = self.left.saturating_sub(1);
        self.say(parallel, setup.map(|setup| setup.seconds));
    }

    fn refining(&mut self, count: usize) {
        self.left = count;
        terminal::progress(format!(
            "segments, routes and sub-microbatches of the {count} fastest:"
        ));
    }

    fn refined(&mut self, setup: &Setup) {
        self.left = self.left.saturating_sub(1);
        self.say(setup.parallel, Some(setup.seconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_spaces_and_quotes_survive_a_shell() {
        assert_eq!(shell("models/qwen-2.toml"), "models/qwen-2.toml");
        assert_eq!(shell("my model"), "'my model'");
        assert_eq!(shell("it's"), "'it'\\''s'");
        assert_eq!(shell(""), "''");
    }
}
