//! Trains a few iterations with this crate's own part at every extension point of dip, and checks that each part was used.

mod collective;
mod cost;
mod data;
mod evaluation;
mod executor;
mod link;
mod modality;
mod packing;
mod plans;
mod schedule;
mod sink;
mod uses;

use std::path::Path;
use std::sync::Arc;

use dip::plan::ModelSpec;
use dip::train::backend::{Cpu, cpu_devices};
use dip::train::model::Modalities;
use dip::train::runtime::Connections;
use dip::train::{Run, RunConfig};

use uses::Uses;

const MODEL: &str = "name = 'small'
sequence_tokens = 64
max_images = 4
microbatches = 4
[[module]]
name = 'vision'
layers = 2
hidden = 16
ffn = 32
heads = 2
kind.vit = { image_px = 8, patch_px = 2, merge = 2 }
[[module]]
name = 'language'
layers = 2
hidden = 16
ffn = 32
heads = 2
inputs = ['vision']
kind.decoder = { vocab = 260 }
";

/// Two replicas of two ranks. There is no schedule of this name: this crate provides the schedule instead.
const RUN: &str = "name = 'outside'
model = 'small'
iterations = 6
output = 'runs/outside'
[pipeline]
ranks = 2
replicas = 2
schedule = 'ours'
[evaluation]
every = 3
";

fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("dip-outside-{}", std::process::id()));
    let trained = train_all(&folder);
    // A run that fails early has no folder yet.
    let _ = std::fs::remove_dir_all(&folder);
    trained?;
    executor::run()
}

fn train_all(folder: &Path) -> anyhow::Result<()> {
    let model = ModelSpec::from_toml(MODEL)?;
    let config = RunConfig::from_toml(RUN)?;
    train(&folder.join("parts"), &model, config.clone())?;
    plans::train(&folder.join("plans"), &model, config)?;
    modality::train(&folder.join("clouds"))
}

/// Trains on two replicas, with a part of this crate at every extension point of a run.
fn train(folder: &Path, model: &ModelSpec, mut config: RunConfig) -> anyhow::Result<()> {
    let uses = Uses::default();
    config.output = folder.to_owned();
    let devices = cpu_devices(config.pipeline.devices());
    let connections = Connections::<Cpu> {
        links: Arc::new(link::CountedLinks(uses.clone())),
        collectives: Arc::new(collective::Meetings(uses.clone())),
        ..Connections::default()
    };
    let mut trainer = Run::new(config, model.clone())
        .with_schedule(schedule::InOrder(uses.clone()))
        .with_cost(cost::Table(uses.clone()))
        .with_data(data::open(model, &uses)?)
        .with_sink(sink::Count(uses.clone()))
        .trainer(devices, connections, Modalities::default())?;
    trainer.run(&mut ())?;
    uses.check(&[
        "schedule",
        "cost model",
        "data source",
        "packing rule",
        "evaluator",
        "metric sink",
        "link",
        "collective",
    ])
}
