//! A modality: point clouds. Every cloud is read by an encoder and becomes one token of the decoder.

mod batches;
mod chunk;
mod operators;

use std::path::Path;

use anyhow::ensure;
use dip::plan::{Modality, ModelSpec, ModuleKind, ModuleSpec};
use dip::train::backend::{Cpu, cpu_devices};
use dip::train::model::{
    AnyChunk, ChunkSpec, Init, Modalities, ModelError, ProbeSpec, TrainableModality,
};
use dip::train::runtime::Connections;
use dip::train::{Backend, Features, Microbatch, Run, RunConfig, RunData};

use crate::uses::Uses;
use batches::Batches;
use chunk::CloudChunk;

/// Name of the modality, and of the module.
pub const CLOUDS: &str = "clouds";
/// Coordinates of a point.
pub const COORDINATES: usize = 3;
/// Tokens of a microbatch, including the tokens of clouds.
pub const TOKENS: usize = 32;

/// The module of clouds is declared as `audio`, which a file can name, and gets its own modality in Rust.
const MODEL: &str = "name = 'clouds'
sequence_tokens = 32
microbatches = 2
[[module]]
name = 'clouds'
layers = 2
hidden = 16
ffn = 24
heads = 2
kind.audio = { frames_per_second = 1, merge = 1 }
[[module]]
name = 'language'
layers = 2
hidden = 16
ffn = 32
heads = 2
inputs = ['clouds']
kind.decoder = { vocab = 32 }
";

const RUN: &str = "name = 'clouds'
model = 'clouds'
iterations = 12
output = 'runs/clouds'
[pipeline]
search_iterations = 10
[optimizer]
learning_rate = 1e-2
warmup_iterations = 1
";

/// The modality for the planner: a cloud has as many rows as points, and one token in the decoder.
#[derive(Debug)]
struct PointClouds;

impl Modality for PointClouds {
    fn name(&self) -> &str {
        CLOUDS
    }

    fn output_tokens(&self, _: u64) -> u64 {
        1
    }

    fn start_parameters(&self, module: &ModuleSpec, _: u64) -> u64 {
        COORDINATES as u64 * u64::from(module.hidden)
    }

    fn end_parameters(&self, module: &ModuleSpec, output_width: u64) -> u64 {
        u64::from(module.hidden) * output_width
    }
}

/// The modality for the trainer.
struct TrainableClouds(Uses);

impl<B: Backend> TrainableModality<B> for TrainableClouds {
    fn build(
        &self,
        chunk: &ChunkSpec<'_>,
        init: &Init<'_, B>,
    ) -> Result<Box<dyn AnyChunk<B>>, ModelError> {
        self.0.add("modality");
        Ok(Box::new(CloudChunk::init(chunk, init)))
    }

    fn probe(&self, probe: &ProbeSpec<'_>) -> Microbatch {
        let mut microbatch = probe.packed_sequence(0);
        let clouds = (0..probe.instances).map(|offset| cloud(vec![0.5; 60], offset)).collect();
        microbatch.features.insert(CLOUDS.into(), clouds);
        microbatch
    }

    fn rows(&self, probe: &ProbeSpec<'_>) -> usize {
        20 * probe.instances as usize
    }
}

/// A cloud whose token stands at `offset` in the sequence. Values are the coordinates, point by point.
fn cloud(values: Vec<f32>, offset: u32) -> Features {
    Features { values, width: COORDINATES, offset, tokens: 1 }
}

/// Trains the encoder beside a decoder, on measured costs and searched plans.
pub fn train(folder: &Path) -> anyhow::Result<()> {
    let uses = Uses::default();
    let mut model = ModelSpec::from_toml(MODEL)?;
    model.modules[0].kind = ModuleKind::other(PointClouds);
    model.validate()?;
    operators::plan(&model, batches::meta(&batches::microbatch(0)), &uses)?;
    let mut config = RunConfig::from_toml(RUN)?;
    config.output = folder.to_owned();
    let devices = cpu_devices(config.pipeline.devices());
    let modalities = Modalities::<Cpu>::default().with(CLOUDS, TrainableClouds(uses.clone()));
    let data = RunData { loader: Box::new(Batches::new(uses.clone())), evaluator: None };
    let mut trainer = Run::new(config, model).with_data(data).trainer(
        devices,
        Connections::default(),
        modalities,
    )?;
    let first = trainer.step()?.loss;
    let mut last = first;
    while !trainer.is_done() {
        last = trainer.step()?.loss;
    }
    println!("point clouds beside a decoder: loss {first:.3} -> {last:.3}");
    ensure!(last < first, "the loss does not fall");
    uses.check(&["operators", "modality", "batch loader"])
}
