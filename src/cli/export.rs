//! `dip export`: writes a checkpoint in the layout of Hugging Face.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Args;
use dip::plan::Bytes;
use dip::train::RunConfig;
use dip::train::checkpoint::CheckpointReader;
use dip::train::weights::{self, ExportConfig, Exported};
use schemars::JsonSchema;
use serde::Serialize;

use super::inputs;
use super::output::{Figures, JsonOutput};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip export run.toml --out exported
  dip export run.toml --out adapter --adapter")]
pub struct Export {
    /// The run that was trained, a TOML file
    run: PathBuf,
    /// The folder to write; it must not exist yet
    #[arg(long)]
    out: PathBuf,
    /// The checkpoint folder, instead of the newest of the run
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// The output folder of the run, in place of the file's
    #[arg(long, conflicts_with = "checkpoint")]
    output: Option<PathBuf>,
    /// Write only the adapters of the run, in the layout of PEFT
    #[arg(long, conflicts_with_all = ["bf16", "shard_mib"])]
    adapter: bool,
    /// Round to bf16, instead of writing f32
    #[arg(long)]
    bf16: bool,
    /// Size of a shard, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    shard_mib: u64,
    #[command(flatten)]
    json: JsonOutput,
}

/// What `dip export` and `dip merge` print.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExportFigures {
    /// The folder that was written.
    pub out: PathBuf,
    /// The checkpoint or folder that was read.
    pub from: PathBuf,
    pub tensors: usize,
    /// Bytes of all tensors; absent for adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Files with tensors.
    pub files: usize,
}

impl ExportFigures {
    /// The figures of weights that were written to `out`.
    pub fn new(out: &Path, from: &Path, written: Exported) -> Self {
        let Exported { tensors, bytes, shards } = written;
        Self {
            out: out.to_owned(),
            from: from.to_owned(),
            tensors,
            bytes: Some(bytes),
            files: shards,
        }
    }
}

impl Figures for ExportFigures {
    const SCHEMA: &'static str = "dip.export/v1";
}

impl Export {
    pub fn run(&self) -> Result<ExitCode> {
        let (config, model) = inputs::run(&self.run)?;
        let from = published(&config)?;
        let output = self.output.as_ref().unwrap_or(&config.output);
        let checkpoint = match &self.checkpoint {
            Some(path) => {
                let reader = CheckpointReader::open(path)?;
                reader.verify(0, 1)?;
                reader
            }
            None => inputs::newest_checkpoint(output)?,
        };
        let (trained, checkpoint) = (checkpoint.weights()?, checkpoint.path());
        if self.adapter {
            let count = weights::export_adapter(&trained, &model, &from, &self.out)?;
            let (out, from) = (self.out.clone(), checkpoint.to_owned());
            let figures = ExportFigures { out, from, tensors: count, bytes: None, files: 1 };
            self.json.print(&figures, || {
                let (out, from) = (self.out.display(), checkpoint.display());
                println!("{out}: an adapter of {count} tensors, from {from}");
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let how = ExportConfig { shard_bytes: self.shard_mib << 20, bf16: self.bf16 };
        let written = weights::export(&trained, &model, &from, &self.out, how)?;
        let figures = ExportFigures::new(&self.out, checkpoint, written);
        self.json.print(&figures, || {
            println!(
                "{}: {} tensors, {} in {} files, from {}",
                self.out.display(),
                written.tensors,
                Bytes(written.bytes),
                written.shards,
                checkpoint.display()
            );
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The folder of the published model that a run started from.
fn published(config: &RunConfig) -> Result<PathBuf> {
    config.published_folder().ok_or_else(|| {
        anyhow!(
            "model {:?} has no config.json, which an export needs; train a model of Hugging Face, by `model` or by \
             `weights.from`",
            config.model
        )
    })
}
