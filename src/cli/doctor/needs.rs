//! The devices that a run may train on, and all that one run needs.

use std::path::Path;

use anyhow::Result;
use dip::plan::{Bytes, ModelSpec};
use dip::train::model::Precision;
use dip::train::{Backend, Device, OnBackend, Run, RunConfig, on_device};

use super::{Check, machine};
use crate::cli::inputs;

/// Space that a run should have: a checkpoint of a model of this machine is far smaller.
const LEAST_DISK: u64 = 1 << 30;
/// Bytes of a weight with its optimiser state in a checkpoint, in f32.
const BYTES_PER_WEIGHT: u64 = 12;

/// The devices of this build.
pub fn devices() -> Vec<Check> {
    [Device::Cpu, Device::Cuda, Device::Wgpu, Device::Rocm].map(device).into()
}

/// The name of a device in run files.
fn name(device: Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda => "cuda",
        Device::Wgpu => "wgpu",
        Device::Rocm => "rocm",
    }
}

fn device(device: Device) -> Check {
    match on_device(device, 1, Precisions) {
        Ok(precisions) => {
            let text = format!("trains in {}", precisions.join(", "));
            Check::ok(name(device), with_kernels(device, text))
        }
        Err(error) => {
            let text = error.to_string();
            let (found, remedy) = text.split_once("; ").unwrap_or((&text, ""));
            Check::absent(name(device), found, remedy)
        }
    }
}

/// Adds where compiled kernels are kept.
fn with_kernels(device: Device, text: String) -> String {
    #[cfg(any(feature = "cuda", feature = "rocm"))]
    if matches!(device, Device::Cuda | Device::Rocm)
        && let Some(folder) = dip::train::backend::kernel_folder()
    {
        return format!("{text}; compiled kernels in {}", folder.display());
    }
    let _ = device;
    text
}

/// The number formats that a device trains in.
struct Precisions;

impl OnBackend for Precisions {
    type Output = Vec<&'static str>;

    fn call<B: Backend>(self, devices: Vec<B::Device>) -> Self::Output {
        let all = [Precision::F32, Precision::Bf16, Precision::F16];
        let has = |precision: Precision| {
            devices.first().is_some_and(|device| precision.check_supported::<B>(device).is_ok())
        };
        all.into_iter().filter(|precision| has(*precision)).map(Precision::name).collect()
    }
}

/// Adds what the run of a file needs.
///
/// # Errors
/// An error of the file, its model or its settings.
pub fn of_run(path: &Path, checks: &mut Vec<Check>) -> Result<()> {
    let (config, model) = inputs::run(path)?;
    let wanted = name(config.pipeline.device);
    for check in checks.iter_mut().filter(|check| check.name == wanted) {
        *check = check.clone().needed();
    }
    checks.push(precision(&config));
    checks.push(threads(&config));
    checks.extend(memory(&config));
    checks.extend(disk(&config, &model));
    checks.push(weights(&config));
    checks.push(data(config, model));
    Ok(())
}

fn precision(config: &RunConfig) -> Check {
    let precision = config.pipeline.precision;
    let found = on_device(config.pipeline.device, 1, Supports(precision));
    match found {
        Ok(Ok(())) => Check::ok("precision", precision.name()),
        Ok(Err(text)) => {
            Check::absent("precision", text, "set pipeline.precision = \"f32\"").needed()
        }
        // The line of the device says what is missing.
        Err(_) => Check::absent("precision", "no device to ask", "see the line of the device"),
    }
}

/// Whether a device trains in a number format.
struct Supports(Precision);

impl OnBackend for Supports {
    type Output = Result<(), String>;

    fn call<B: Backend>(self, devices: Vec<B::Device>) -> Self::Output {
        let Some(device) = devices.first() else { return Err("no device".into()) };
        self.0.check_supported::<B>(device).map_err(|error| error.to_string())
    }
}

fn threads(config: &RunConfig) -> Check {
    let pipeline = &config.pipeline;
    let threads = match pipeline.device {
        Device::Cpu => pipeline.devices() as usize * pipeline.threads_per_rank,
        Device::Cuda | Device::Wgpu | Device::Rocm => pipeline.devices() as usize,
    };
    let found = format!("{threads} threads of ranks on {} cores", machine::cores());
    if threads <= machine::cores() || pipeline.device != Device::Cpu {
        return Check::ok("threads", found);
    }
    let remedy = "they take turns; lower pipeline.ranks, replicas or threads_per_rank";
    Check::absent("threads", found, remedy)
}

/// On the CPU all ranks share the memory of the machine.
fn memory(config: &RunConfig) -> Option<Check> {
    let limit = config.pipeline.memory_limit_bytes?;
    let free = machine::free_memory().filter(|_| config.pipeline.device == Device::Cpu)?;
    let all = limit.saturating_mul(config.pipeline.devices().into());
    let found = format!("{} for all ranks, {} free", Bytes(all), Bytes(free));
    Some(match all <= free {
        true => Check::ok("memory limit", found),
        false => Check::absent("memory limit", found, "lower pipeline.memory_limit_bytes").needed(),
    })
}

/// Space for the checkpoints that are kept, and one that is written.
fn disk(config: &RunConfig, model: &ModelSpec) -> Option<Check> {
    let free = machine::free_disk(&config.output)?;
    let weights = |module: usize| model.parameters(module.into()).total();
    let all: u64 = (0..model.modules.len()).map(weights).fold(0, u64::saturating_add);
    let kept = config.checkpoint.keep as u64 + 1;
    let needed =
        all.saturating_mul(BYTES_PER_WEIGHT).saturating_mul(kept).saturating_add(LEAST_DISK);
    let output = config.output.display();
    let found = format!(
        "{} free for {output}, {kept} checkpoints need up to {}",
        Bytes(free),
        Bytes(needed)
    );
    Some(match needed <= free {
        true => Check::ok("output", found),
        false => Check::absent("output", found, "free some, or lower checkpoint.keep").needed(),
    })
}

fn weights(config: &RunConfig) -> Check {
    let Some(weights) = &config.weights else { return Check::ok("weights", "drawn") };
    let from = &weights.from;
    if from.is_dir() {
        return Check::ok("weights", from.display().to_string());
    }
    Check::absent("weights", format!("no folder {}", from.display()), "correct weights.from")
        .needed()
}

/// Opens the data as training does.
fn data(config: RunConfig, model: ModelSpec) -> Check {
    let shards = config.data.shards.len();
    let found = match config.data.has_shards() {
        true => format!("{shards} entries of data.shards can be opened"),
        false => "drawn".into(),
    };
    match Run::new(config, model).open() {
        Ok(_) => Check::ok("data", found),
        Err(error) => {
            let text = error.to_string();
            let (found, remedy) = text.split_once("; ").unwrap_or((&text, "correct [data]"));
            Check::absent("data", found, remedy).needed()
        }
    }
}
