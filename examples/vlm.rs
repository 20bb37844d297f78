//! Trains the small vision-language model from the library: what `dip train` does, step by step.
//!
//! `cargo run --release --example vlm -- 200` trains 200 iterations.

use std::sync::Arc;

use dip::burn::backend::{Cpu, cpu_devices};
use dip::burn::measure::{MeasureSettings, cached_profile};
use dip::burn::runtime::Connections;
use dip::burn::train::{
    IterationReport, MetricSink, RunConfig, RunData, SinkError, Trainer, TrainerInit,
};
use dip::prelude::*;
use dip::sched::PlannerConfig;

struct Print;

impl MetricSink for Print {
    fn iteration(&mut self, r: &IterationReport) -> Result<(), SinkError> {
        if r.iteration.is_multiple_of(10) {
            let (measured, planned) = (r.makespan_s, r.predicted_s);
            println!("{:5} loss {:.3}, {measured} (planned {planned})", r.iteration, r.loss);
        }
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let iterations = std::env::args().nth(1).map_or(Ok(200), |n| n.parse())?;
    let mut config = RunConfig::from_toml(include_str!("vlm-tiny.toml"))?;
    (config.iterations, config.output) = (iterations, "runs/vlm-example".into());
    let model = presets::model("vlm-tiny").expect("the preset is built in");
    let devices = cpu_devices(config.pipeline.ranks);

    // What stages cost on this machine, measured once.
    let path = config.output.join("profile.json");
    let profile = cached_profile::<Cpu>(&path, &model, &devices[0], MeasureSettings::default())?;
    let cost: Arc<dyn CostModel> = Arc::new(MeasuredCost::new(&profile));

    // Which layers on which rank: before training, from costs.
    let partition = Partitioner::new(&model, config.pipeline.ranks, &*cost).partition()?;

    // A plan for every batch, searched while the batch before trains.
    let mut cluster = presets::cluster("cpu").expect("the preset is built in");
    cluster.device.memory_bytes = Bytes(8 << 30);
    let (spec, placed) = (model.clone(), partition.clone());
    let inputs = PlanInputs { model: spec, cluster, partition: placed, cost, weight_split: true };
    let planner = PlannerConfig { budget: Budget::Iterations(100), ..PlannerConfig::default() };
    let plans = Box::new(BatchPlanner::new(inputs, planner));

    let data = RunData::open(&model, &config.data, &config.evaluation, config.seed)?;
    let init = TrainerInit {
        config: &config,
        model: &model,
        partition: &partition,
        plans,
        data,
        devices,
        connections: Connections::default(),
    };
    let mut trainer = Trainer::<Cpu>::new(init)?;
    trainer.run(&mut Print)?;
    if let Some(evaluation) = trainer.evaluate(true)? {
        for caption in evaluation.captions {
            println!("{} | generated: {}", caption.expected, caption.generated);
        }
    }
    Ok(())
}
