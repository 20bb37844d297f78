//! Training throughput of one layer on one core: forward and backward, as the planner's profile measures them.
//!
//! `cargo run --release --example throughput` prints tokens per second and GFLOP/s for decoder and ViT layers of several shapes.
//! `-- decoder` or `-- vit` measures one kind of layer. `scripts/pytorch-throughput.py` prints the same table for PyTorch.

use dip::plan::profile::{Part, Profile};
use dip::prelude::*;
use dip::train::backend::{Cpu, cpu_devices};
use dip::train::measure::{MeasureSettings, Profiler};

/// Sequences of a batch.
const BATCH: u32 = 2;

/// Layers of one shape: `module` is `decoder` or `vit`, `length` the tokens or patches of one sequence.
struct Shape {
    module: &'static str,
    hidden: u32,
    length: u32,
}

const SHAPES: [Shape; 6] = [
    Shape { module: "decoder", hidden: 256, length: 128 },
    Shape { module: "decoder", hidden: 256, length: 512 },
    Shape { module: "decoder", hidden: 512, length: 512 },
    Shape { module: "vit", hidden: 256, length: 64 },
    Shape { module: "vit", hidden: 256, length: 256 },
    Shape { module: "vit", hidden: 512, length: 256 },
];

impl Shape {
    fn ffn(&self) -> u32 {
        // A gated network has three matrices instead of two: about the same number of weights.
        if self.module == "decoder" { self.hidden * 11 / 4 } else { self.hidden * 4 }
    }

    /// An encoder before a decoder. The module that is not measured is tiny.
    fn model(&self) -> anyhow::Result<ModelSpec> {
        let heads = self.hidden / 64;
        let wide = format!("hidden = {}\nffn = {}\nheads = {heads}\n", self.hidden, self.ffn());
        let small = "hidden = 8\nffn = 8\nheads = 1\n".to_owned();
        let decoder = self.module == "decoder";
        let (vit, language) = if decoder { (small, wide) } else { (wide, small) };
        let (tokens, side) = match decoder {
            true => (BATCH * self.length, 2),
            false => (64, self.length.isqrt()),
        };
        let images = if decoder { 1 } else { BATCH };
        let image_px = 4 * side;
        Ok(ModelSpec::from_toml(&format!(
            "name = 'throughput'\nsequence_tokens = {tokens}\nmax_images = {images}\n\
             [[module]]\nname = 'vit'\nlayers = 4\n{vit}\
             kind.vit = {{ image_px = {image_px}, patch_px = 4, merge = 2 }}\n\
             [[module]]\nname = 'decoder'\nlayers = 4\n{language}inputs = ['vit']\n\
             kind.decoder = {{ vocab = 64 }}\n"
        ))?)
    }

    fn tokens(&self) -> f64 {
        f64::from(BATCH * self.length)
    }

    /// FLOPs of one layer, forward and backward; causal attention counts in full.
    fn flops(&self) -> f64 {
        let (h, f) = (f64::from(self.hidden), f64::from(self.ffn()));
        let matrices = if self.module == "decoder" { 3.0 } else { 2.0 };
        let weights = 4.0 * h * h + matrices * h * f;
        3.0 * self.tokens() * (2.0 * weights + 4.0 * f64::from(self.length) * h)
    }

    /// Seconds of forward and backward of one layer.
    fn seconds(&self, profile: &Profile) -> Option<f64> {
        let all = profile.entries.iter().filter(|e| e.module == self.module);
        let layer = all.filter(|e| e.part == Part::Layer).max_by_key(|e| e.tokens)?;
        Some(layer.times.forward_s.0 + layer.times.backward_s.0)
    }
}

fn main() -> anyhow::Result<()> {
    let device = cpu_devices(1)[0];
    let documents = BATCH as usize;
    let settings = MeasureSettings {
        rounds: 1,
        warm_up: 1,
        runs: 5,
        in_flight: 1,
        ranks: 1,
        documents,
        ..MeasureSettings::default()
    };
    println!("{:8} {:>6} {:>6} {:>12} {:>9}", "layer", "hidden", "length", "tokens/s", "GFLOP/s");
    // `-- decoder` measures only decoder layers.
    let only = std::env::args().nth(1);
    for shape in SHAPES.iter().filter(|s| only.as_ref().is_none_or(|only| only == s.module)) {
        let measured = Profiler::<Cpu>::new(&shape.model()?, &device, settings).profile()?;
        let seconds = shape.seconds(&measured).expect("the profile covers every module");
        let (speed, gflops) = (shape.tokens() / seconds, shape.flops() / seconds / 1e9);
        let Shape { module, hidden, length } = *shape;
        println!("{module:8} {hidden:6} {length:6} {speed:12.0} {gflops:9.1}");
    }
    Ok(())
}
