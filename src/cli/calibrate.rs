//! `dip calibrate`: measures operators on this machine and fits the factors of a cluster to their times.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use dip::emulate::{Calibration, Measurement, fit, with_measured_peaks};
use dip::plan::{Bytes, ClusterSpec, OperatorProfile, Seconds, presets};
use dip::train::measure::MeasureError;
use dip::train::measure::operators::{OperatorSettings, operators};
use dip::train::model::Precision;
use dip::train::{Backend, Device, OnBackend, on_device};
use schemars::JsonSchema;
use serde::Serialize;

use super::files::write_whole;
use super::inputs;
use super::output::{Figures, JsonOutput};
use super::terminal;

/// The kind of device that operators are measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MeasuredDevice {
    /// The cores of this machine
    Cpu,
    /// Its CUDA devices
    Cuda,
}

/// The number format of the operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Values {
    F32,
    Bf16,
    F16,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip calibrate --device cpu --quick --out here.toml
  dip plan --model vlm-s --cluster here.toml

With -v every operator is printed with its measured and fitted time")]
pub struct Calibrate {
    /// The device to measure
    #[arg(long, value_enum)]
    device: MeasuredDevice,
    /// Write the cluster to this TOML file, for --cluster
    #[arg(long)]
    out: PathBuf,
    /// The data sheet: a cluster preset or TOML whose factors are fitted. Required for cuda; on cpu the fastest measured
    /// operators give the peaks
    #[arg(long)]
    sheet: Option<String>,
    /// Devices that measure at the same time; by default one for each core, or one CUDA device
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: Option<u32>,
    /// Compute threads of each worker on cpu
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// The number format of the operators
    #[arg(long, value_enum, default_value_t = Values::F32)]
    precision: Values,
    /// Measure fewer and smaller operators: seconds instead of a minute, and a rougher fit
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    json: JsonOutput,
}

/// What `dip calibrate` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CalibrationFigures {
    /// What was measured.
    device: String,
    cluster: ClusterSpec,
    /// Mean error of the fit, relative to the measured times.
    error: f64,
    /// Mean error of fits to all other measurements.
    leave_one_out: f64,
    operators: Vec<OperatorFigures>,
}

/// The errors of one kind of operator.
#[derive(Debug, Serialize, JsonSchema)]
struct OperatorFigures {
    name: &'static str,
    measurements: usize,
    error: f64,
    leave_one_out: f64,
}

impl Figures for CalibrationFigures {
    const SCHEMA: &'static str = "dip.calibration/v1";
}

impl Calibrate {
    pub fn run(&self) -> Result<ExitCode> {
        let sheet = self.sheet()?;
        self.json.say(format!("measuring on {} workers", self.workers()));
        let device = match self.device {
            MeasuredDevice::Cpu => Device::Cpu,
            MeasuredDevice::Cuda => Device::Cuda,
        };
        let profile = on_device(device, self.workers(), Operators(self.settings()))??;
        let calibration = self.fit(sheet, &profile)?;
        let text = self.file(&calibration, &profile)?;
        write_whole(&self.out, text.as_bytes())?;
        self.json.print(&CalibrationFigures::new(&calibration, &profile), || {
            if terminal::is_verbose() {
                print_operators(&calibration, &profile);
            }
            print(&calibration);
            println!("written to {0}; use it as --cluster {0}", self.out.display());
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// The cluster whose factors are fitted.
    fn sheet(&self) -> Result<ClusterSpec> {
        match (&self.sheet, self.device) {
            (Some(name), _) => inputs::cluster(name),
            (None, MeasuredDevice::Cpu) => {
                Ok(presets::cluster("cpu").expect("the preset is built in"))
            }
            (None, MeasuredDevice::Cuda) => bail!(
                "--sheet is absent, but a CUDA device needs its data sheet; give a preset ({}) or a cluster TOML",
                presets::cluster_names().join(", ")
            ),
        }
    }

    fn workers(&self) -> u32 {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from) as u32;
        self.workers.unwrap_or_else(|| match self.device {
            MeasuredDevice::Cpu => (cores() / self.threads).max(1),
            MeasuredDevice::Cuda => 1,
        })
    }

    fn settings(&self) -> OperatorSettings {
        let (longest, runs) = if self.quick { (2e-3, 9) } else { (10e-3, 21) };
        OperatorSettings {
            longest: Seconds(longest),
            runs,
            threads: self.threads as usize,
            precision: match self.precision {
                Values::F32 => Precision::F32,
                Values::Bf16 => Precision::Bf16,
                Values::F16 => Precision::F16,
            },
            separate_memory: self.device == MeasuredDevice::Cuda,
        }
    }

    fn fit(&self, sheet: ClusterSpec, profile: &OperatorProfile) -> Result<Calibration> {
        let of = |time| Measurement::of(time, profile.element_bytes);
        let measurements: Vec<_> = profile.times.iter().map(of).collect();
        let mut sheet = match (&self.sheet, self.device) {
            (None, MeasuredDevice::Cpu) => with_measured_peaks(&sheet, &measurements),
            _ => sheet,
        };
        sheet.device.element_bytes = profile.element_bytes;
        if self.device == MeasuredDevice::Cpu {
            (sheet.nodes, sheet.devices_per_node) = (1, self.workers());
        }
        sheet.name = format!("{}-calibrated", sheet.name);
        let calibration = fit(&sheet, &measurements).context(
            "the measurements do not fit the cost model; close other programs and try again",
        )?;
        calibration.cluster.validate()?;
        Ok(calibration)
    }

    fn file(&self, calibration: &Calibration, profile: &OperatorProfile) -> Result<String> {
        let toml = calibration.cluster.to_toml()?;
        let memory = if self.device == MeasuredDevice::Cpu {
            ", and the memory limit is a choice"
        } else {
            ""
        };
        Ok(format!(
            "# Fitted by `dip calibrate` to {} operators on {}.\n# Mean error {:.1} %, leaving one out {:.1} %. Links \
             between nodes were not measured{memory}.\n{toml}",
            calibration.times.len(),
            profile.device,
            100.0 * calibration.error(),
            100.0 * calibration.leave_one_out(),
        ))
    }
}

/// The measurement of all operators, on any backend.
struct Operators(OperatorSettings);

impl OnBackend for Operators {
    type Output = Result<OperatorProfile, MeasureError>;

    fn call<B: Backend>(self, devices: Vec<B::Device>) -> Self::Output {
        operators::<B>(&devices, self.0)
    }
}

impl CalibrationFigures {
    fn new(calibration: &Calibration, profile: &OperatorProfile) -> Self {
        let operators = calibration.by_name().into_iter().map(|summary| OperatorFigures {
            name: summary.name,
            measurements: summary.measurements,
            error: summary.error,
            leave_one_out: summary.leave_one_out,
        });
        Self {
            device: profile.device.clone(),
            cluster: calibration.cluster.clone(),
            error: calibration.error(),
            leave_one_out: calibration.leave_one_out(),
            operators: operators.collect(),
        }
    }
}

fn print_operators(calibration: &Calibration, profile: &OperatorProfile) {
    for (time, fitted) in profile.times.iter().zip(&calibration.times) {
        println!(
            "{:>12.1} us measured, {:>12.1} us fitted: {:?}",
            1e6 * time.seconds.0,
            1e6 * fitted.seconds.0,
            time.shape
        );
    }
}

fn print(calibration: &Calibration) {
    println!("{:<12} {:>12} {:>8} {:>14}", "operator", "measurements", "error", "leave one out");
    let row = |name: &str, n: usize, error: f64, left_out: f64| {
        println!("{name:<12} {n:>12} {:>6.1} % {:>12.1} %", 100.0 * error, 100.0 * left_out);
    };
    for summary in calibration.by_name() {
        row(summary.name, summary.measurements, summary.error, summary.leave_one_out);
    }
    let (error, left_out) = (calibration.error(), calibration.leave_one_out());
    row("all", calibration.times.len(), error, left_out);
    let (device, factors) = (&calibration.cluster.device, &calibration.cluster.factors);
    println!(
        "peaks {:.1} GFLOP/s, {:.1} GB/s; factors matmul {:.2}, attention {:.2}, memory {:.2} ({:.2} in a cache of {}), \
         norm {:.2}, activation {:.2}, network {:.2}; half speed at {:.2} MFLOP, launch {:.1} us, message {:.1} us",
        device.flops_per_s / 1e9,
        device.memory_bytes_per_s / 1e9,
        factors.matmul,
        factors.attention,
        factors.memory,
        factors.cached,
        Bytes(factors.cache_bytes),
        factors.norm,
        factors.activation,
        factors.network,
        factors.saturation_flop / 1e6,
        factors.launch_s * 1e6,
        calibration.cluster.links.latency_s * 1e6,
    );
}
