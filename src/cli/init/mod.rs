//! `dip init`: writes a run for a model and data, after looking at both.

mod figures;
mod files;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use dip::plan::{Bytes, ModelSpec};
use dip::train::data::{DataError, SkipReason};
use dip::train::{Device, Proposal, Run, RunConfig, RunError, RunRequest, TrainError};

use super::doctor::free_memory;
use super::files::write_whole;
use super::inputs;
use super::output::JsonOutput;
pub use figures::ProposalFigures;
use files::{DataFiles, name_of, weights_of};

/// Most ranks that are proposed for the cores of a machine.
const MAX_RANKS: u32 = 8;
/// Share of the free memory of a machine that a run may take.
const SHARE_OF_MEMORY: f64 = 0.8;
/// Below this share of usable samples, another folder of pictures is tried.
const FEW_USABLE: f64 = 0.5;

/// The devices of the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RunDevice {
    Cpu,
    Cuda,
    Wgpu,
    Rocm,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dip init --model path/to/Qwen2.5-VL-3B --data my-pictures/ --out run.toml")]
pub struct Init {
    /// A model preset, a model TOML, or a folder of Hugging Face
    #[arg(long)]
    model: String,
    /// Shards, JSON files, or folders of them; names with `test` or `val` are held out. Without it, data are drawn
    #[arg(long, num_args = 1.., value_name = "PATH")]
    data: Vec<PathBuf>,
    /// The folder of the pictures that JSON files name
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// The file to write
    #[arg(long, default_value = "run.toml")]
    out: PathBuf,
    /// Pipeline ranks; by default one for each core, and one on other devices
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    ranks: Option<u32>,
    /// The device of the ranks
    #[arg(long, value_enum, default_value_t = RunDevice::Cpu)]
    device: RunDevice,
    /// Memory of one rank in bytes; by default the free memory of this machine is divided among the ranks
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    memory: Option<u64>,
    /// Say how many tokens and FLOPs an epoch has, but do not measure how long it takes
    #[arg(long)]
    no_measure: bool,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    json: JsonOutput,
}

impl Init {
    pub fn run(&self) -> Result<ExitCode> {
        let out = self.out.display();
        if !self.force && self.out.exists() {
            bail!("{out} is there already; choose another --out, or replace it with --force");
        }
        let spec = inputs::model(&self.model)?;
        let data = DataFiles::find(&self.data)?;
        let proposal = self.propose(&spec, &data)?;
        let mut written = proposal.clone();
        written.config.write_into(self.out.parent().unwrap_or(Path::new("")));
        let text = written.to_toml();
        check(&text, &written)?;
        let run = Run::new(proposal.config.clone(), proposal.model.clone());
        let outlook = run.outlook(!self.no_measure)?;
        write_whole(&self.out, text.as_bytes())?;
        self.json.print(&ProposalFigures::new(&self.out, &proposal, &outlook), || {
            print!("{}", table::of(&proposal, &spec, &outlook));
            println!("\nwritten to {out}; train with\n\n  dip train {out}");
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// Proposes a run. If JSON files do not find their pictures, folders of pictures beside them are tried.
    fn propose(&self, spec: &ModelSpec, data: &DataFiles) -> Result<Proposal> {
        let first = Proposal::new(&self.request(spec, data, self.images.clone()), spec);
        if self.images.is_some() || !lacks_pictures(&first) {
            return Ok(first?);
        }
        for folder in data.picture_folders() {
            let other = Proposal::new(&self.request(spec, data, Some(folder)), spec);
            if !lacks_pictures(&other) {
                return Ok(other?);
            }
        }
        Ok(first?)
    }

    fn request(&self, spec: &ModelSpec, data: &DataFiles, images: Option<PathBuf>) -> RunRequest {
        let device = match self.device {
            RunDevice::Cpu => Device::Cpu,
            RunDevice::Cuda => Device::Cuda,
            RunDevice::Wgpu => Device::Wgpu,
            RunDevice::Rocm => Device::Rocm,
        };
        let layers = spec.modules.iter().map(|module| module.layers).fold(0, u32::saturating_add);
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let usual = if device == Device::Cpu { cores.min(MAX_RANKS).min(layers).max(1) } else { 1 };
        let ranks = self.ranks.unwrap_or(usual);
        let share = |free: u64| (free as f64 * SHARE_OF_MEMORY / f64::from(ranks)) as u64;
        let free = (device == Device::Cpu).then(free_memory).flatten().map(share);
        RunRequest {
            name: name_of(&self.out, &self.model),
            model: self.model.clone(),
            weights: weights_of(&self.model),
            shards: data.train.clone(),
            held_out: data.held_out.clone(),
            images,
            ranks,
            device,
            memory: self.memory.or(free).map(Bytes),
            keeps_memory: self.memory.is_some(),
        }
    }
}

/// True if most samples have no picture where the files look for them.
fn lacks_pictures(found: &Result<Proposal, RunError>) -> bool {
    match found {
        Ok(found) => {
            let missing = found.survey.skipped.get(SkipReason::MissingPicture);
            missing > 0 && found.survey.usable_share() < FEW_USABLE
        }
        Err(RunError::Train(TrainError::Data(DataError::NoSamples { skipped, .. }))) => {
            skipped.get(SkipReason::MissingPicture) > 0
        }
        Err(_) => false,
    }
}

/// Checks that training reads what was proposed.
fn check(text: &str, proposal: &Proposal) -> Result<()> {
    let read = RunConfig::from_toml(text).context("the proposed run cannot be read back")?;
    if read != proposal.config {
        bail!("the proposed run reads back as another one: {read:?}, not {:?}", proposal.config);
    }
    Ok(())
}
