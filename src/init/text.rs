//! A proposed run as commented TOML.

use std::path::Path;

use dip_burn::model::Precision;
use dip_burn::train::{Device, SequenceConfig};

use super::{Fit, Proposal, RunKind};

/// Column at which comments begin.
const COMMENTS: usize = 40;

/// The run as TOML.
pub(super) fn of(proposal: &Proposal) -> String {
    let mut out = Writer::default();
    head(&mut out, proposal);
    weights(&mut out, proposal);
    sequence(&mut out, proposal);
    pipeline(&mut out, proposal);
    data(&mut out, proposal);
    optimizer(&mut out, proposal);
    let config = &proposal.config;
    out.table("evaluation", "");
    out.set("every", config.evaluation.every, "iterations between two evaluations");
    if config.data.has_shards() && config.data.held_out.is_empty() {
        out.note("# Without data.held_out nothing is evaluated.");
    }
    out.table("checkpoint", "");
    out.set("every", config.checkpoint.every, "iterations between two checkpoints");
    out.set("keep", config.checkpoint.keep, "newest checkpoints that stay");
    out.0
}

fn head(out: &mut Writer, proposal: &Proposal) {
    let config = &proposal.config;
    out.note("# Proposed by `dip init`. Change what you like, then: dip train this-file");
    out.set("name", text(&config.name), "");
    out.set("model", text(&config.model), "a preset, a model TOML, or a folder of Hugging Face");
    let length = match proposal.survey.usable_samples() {
        Some(samples) => {
            let each = proposal.documents_per_iteration();
            format!("{:.1} epochs", config.iterations as f64 * each / samples.max(1.0))
        }
        None => "drawn data has no epochs".into(),
    };
    out.set("iterations", config.iterations, &length);
    out.set("seed", config.seed, "of weights, data and search");
    out.set("output", path(&config.output), "checkpoints, metrics, samples");
}

fn weights(out: &mut Writer, proposal: &Proposal) {
    let config = &proposal.config;
    let Some(weights) = &config.weights else { return };
    out.table("weights", "");
    out.set("from", path(&weights.from), "config.json, safetensors and the files beside them");
    if !weights.frozen.is_empty() {
        out.set("frozen", list(&weights.frozen), "not trained");
    }
    let Some(lora) = &config.lora else {
        out.note("# All weights are trained. For adapters instead, which need less memory:");
        out.note("# [lora]");
        out.note("# rank = 16");
        out.note("# alpha = 32.0");
        return;
    };
    out.table("lora", "adapters: all weights do not fit the memory, or train with");
    out.set("rank", lora.rank, "inner width");
    out.set("alpha", float(lora.alpha), "the product is scaled by alpha / rank");
    out.set("modules", list(&lora.modules), "");
    let targets: Vec<_> = lora.targets.iter().map(|target| target.name()).collect();
    out.set("targets", list(&targets), "");
}

fn sequence(out: &mut Writer, proposal: &Proposal) {
    let Some(sequence) = proposal.config.sequence else { return };
    let SequenceConfig { tokens, images, image_patches, image_px, frame_tokens, .. } = sequence;
    out.table("sequence", "packed documents share a sequence");
    out.maybe("tokens", tokens, "longer documents are cut");
    out.maybe("images", images, "most images of a sequence");
    out.maybe("image_patches", image_patches, "most patches of all of them");
    out.maybe("image_px", image_px, "side of a typical image");
    out.maybe("frame_tokens", frame_tokens, "most tokens of a latent frame");
}

fn pipeline(out: &mut Writer, proposal: &Proposal) {
    let pipeline = &proposal.config.pipeline;
    out.table("pipeline", "");
    let device = match pipeline.device {
        Device::Cpu => "cpu",
        Device::Cuda => "cuda",
        Device::Wgpu => "wgpu",
        Device::Rocm => "rocm",
    };
    out.set("device", text(device), "cpu, cuda, wgpu or rocm");
    out.set("ranks", pipeline.ranks, "pipeline ranks");
    if pipeline.precision != Precision::F32 {
        out.set("precision", text(pipeline.precision.name()), "of the layers; weights stay f32");
    }
    let total = proposal.memory.total();
    match (pipeline.memory_limit_bytes, proposal.fit) {
        (Some(limit), Fit::Recomputed) => {
            let why = format!("of a rank; {total} without recomputation");
            out.set("memory_limit_bytes", limit, &why);
        }
        (Some(limit), _) => out.set("memory_limit_bytes", limit, "of a rank"),
        (None, _) => out.note(&format!(
            "# memory_limit_bytes = {} # about what the fullest rank needs; a limit makes ranks compute activations again",
            total.0
        )),
    }
}

fn data(out: &mut Writer, proposal: &Proposal) {
    let data = &proposal.config.data;
    out.table("data", "");
    if data.has_shards() {
        let shards: Vec<_> = data.shards.iter().map(|path| path.display().to_string()).collect();
        out.set("shards", list(&shards), "");
        let held_out: Vec<_> = data.held_out.iter().map(|p| p.display().to_string()).collect();
        match held_out.is_empty() {
            true => out.note("# held_out = [\"data/test.tar\"] # for held-out losses and samples"),
            false => out.set("held_out", list(&held_out), ""),
        }
        if let Some(images) = &data.images {
            out.set("images", path(images), "where JSON files find their pictures");
        }
    } else {
        out.note("# shards = [\"data/train-*.tar\"] # without shards, data are drawn");
    }
    let each = proposal.documents_per_sequence;
    let what = format!("sequences of an iteration, with about {each:.1} documents each");
    out.maybe("microbatches", data.microbatches, &what);
}

fn optimizer(out: &mut Writer, proposal: &Proposal) {
    let optimizer = &proposal.config.optimizer;
    out.table("optimizer", "");
    let why = match proposal.kind {
        RunKind::FromScratch => "usual for weights of this width from scratch",
        RunKind::Full => "usual for all weights of a published model",
        RunKind::Adapters => "usual for adapters",
    };
    out.set("learning_rate", float(optimizer.learning_rate), why);
    out.set("warmup_iterations", optimizer.warmup_iterations, "3 % of the run");
    out.set("weight_decay", format!("{:?}", optimizer.weight_decay), "on matrices only");
}

/// TOML line by line.
#[derive(Default)]
struct Writer(String);

impl Writer {
    fn note(&mut self, text: &str) {
        self.0 += text;
        self.0.push('\n');
    }

    fn table(&mut self, name: &str, comment: &str) {
        self.0.push('\n');
        self.line(format!("[{name}]"), comment);
    }

    fn set(&mut self, name: &str, value: impl ToString, comment: &str) {
        self.line(format!("{name} = {}", value.to_string()), comment);
    }

    fn maybe<T: ToString>(&mut self, name: &str, value: Option<T>, comment: &str) {
        if let Some(value) = value {
            self.set(name, value, comment);
        }
    }

    fn line(&mut self, line: String, comment: &str) {
        self.0 += &line;
        if !comment.is_empty() {
            let room = COMMENTS.saturating_sub(line.chars().count()).max(1);
            self.0.extend(std::iter::repeat_n(' ', room));
            self.0 += "# ";
            self.0 += comment;
        }
        self.0.push('\n');
    }
}

fn text(value: &str) -> String {
    toml::Value::from(value).to_string()
}

fn path(value: &Path) -> String {
    text(&value.to_string_lossy())
}

fn list<T: AsRef<str>>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(|one| text(one.as_ref())).collect();
    format!("[{}]", all.join(", "))
}

/// A number that TOML reads as a float, with the fewest digits.
fn float(value: f64) -> String {
    match value.abs() {
        small if small > 0.0 && small < 1e-3 => format!("{value:e}"),
        _ => format!("{value:?}"),
    }
}
