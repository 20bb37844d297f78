//! `dip merge`: an adapter of PEFT in the weights of its model.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dip::plan::Bytes;
use dip::train::weights::{self, ExportConfig};

use super::export::ExportFigures;
use super::inputs;
use super::output::JsonOutput;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dip merge --model path/to/Qwen2-VL-2B --adapter adapter --out merged")]
pub struct Merge {
    /// The folder of the model: config.json and safetensors
    #[arg(long)]
    model: String,
    /// The folder of the adapter: adapter_config.json and adapter_model.safetensors
    #[arg(long)]
    adapter: PathBuf,
    /// The folder to write; it must not exist yet
    #[arg(long)]
    out: PathBuf,
    /// Round to bf16, instead of writing f32
    #[arg(long)]
    bf16: bool,
    /// Size of a shard, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    shard_mib: u64,
    #[command(flatten)]
    json: JsonOutput,
}

impl Merge {
    pub fn run(&self) -> Result<ExitCode> {
        let model = inputs::model(&self.model)?;
        let from = weights::model_folder(&self.model).with_context(|| {
            format!(
                "model {:?} is no folder of Hugging Face; give one with its weights",
                self.model
            )
        })?;
        let how = ExportConfig { shard_bytes: self.shard_mib << 20, bf16: self.bf16 };
        let written = weights::merge(&self.adapter, &model, &from, &self.out, how)?;
        let figures = ExportFigures::new(&self.out, &from, written);
        self.json.print(&figures, || {
            println!(
                "{}: {} tensors, {} in {} files, from {} with {}",
                self.out.display(),
                written.tensors,
                Bytes(written.bytes),
                written.shards,
                from.display(),
                self.adapter.display()
            );
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
