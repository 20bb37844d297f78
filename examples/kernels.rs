//! Times every kernel of a device beside its twin in Burn's operations, one line of JSON each.
//!
//! `cargo run --release --features cuda --example kernels -- cuda`; with `--small`, on small tensors.

use dip::train::measure::kernels::{KernelSizes, KernelTime, kernel_times};
use dip::train::model::Precision;
use dip::train::params::ReadError;
use dip::train::{Backend, Device, OnBackend, on_device};

struct Kernels(Vec<KernelSizes>);

impl OnBackend for Kernels {
    type Output = Result<Vec<KernelTime>, ReadError>;

    fn call<B: Backend>(self, devices: Vec<B::Device>) -> Self::Output {
        let mut times = Vec::new();
        for sizes in self.0 {
            let dtype = sizes.precision.dtype();
            if sizes.precision == Precision::F32 || B::supports_dtype(&devices[0], dtype) {
                times.extend(kernel_times::<B>(&devices[0], sizes)?);
            }
        }
        Ok(times)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let device = match arguments.first().map(String::as_str) {
        Some("cuda") => Device::Cuda,
        Some("wgpu") => Device::Wgpu,
        Some("rocm") => Device::Rocm,
        Some("cpu") => Device::Cpu,
        _ => anyhow::bail!("name a device: cuda, wgpu, rocm or cpu"),
    };
    let (rows, width, vocabulary) = match arguments.iter().any(|a| a == "--small") {
        true => (256, 128, 512),
        false => (16_384, 2048, 32_000),
    };
    let sizes = |precision| KernelSizes { rows, width, vocabulary, precision };
    let all = vec![sizes(Precision::F32), sizes(Precision::Bf16)];
    for time in on_device(device, 1, Kernels(all))?? {
        println!("{}", serde_json::to_string(&time)?);
    }
    Ok(())
}
