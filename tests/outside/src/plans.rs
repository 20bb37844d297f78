//! A plan source: it plans each batch when the trainer asks for the plan, on the thread of the trainer.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use dip::plan::{
    BatchMeta, ModelSpec, OneFOneB, PlanError, PlanSource, PlannedBatch, Planning, Seconds, presets,
};
use dip::train::backend::{Cpu, cpu_devices};
use dip::train::model::Modalities;
use dip::train::runtime::Connections;
use dip::train::{RunConfig, Trainer, TrainerInit};

use crate::cost::Table;
use crate::data;
use crate::uses::Uses;

struct OnDemand {
    planning: Planning,
    submitted: VecDeque<BatchMeta>,
    uses: Uses,
}

impl PlanSource for OnDemand {
    fn submit(&mut self, batch: BatchMeta) -> Result<(), PlanError> {
        self.submitted.push_back(batch);
        Ok(())
    }

    fn take(&mut self) -> Result<PlannedBatch, PlanError> {
        self.uses.add("plan source");
        let batch = self.submitted.pop_front().ok_or(PlanError::Empty)?;
        let split = self.planning.split(&batch);
        let plan = self.planning.plan(&batch, &OneFOneB)?;
        let (stall, search) = (Seconds::ZERO, Seconds::ZERO);
        let expected = plan.predicted.makespan_s;
        Ok(PlannedBatch { batch, split, plan, expected, stall, search, fallback: false })
    }
}

/// Trains on one replica of two ranks.
pub fn train(folder: &Path, model: &ModelSpec, mut config: RunConfig) -> anyhow::Result<()> {
    let uses = Uses::default();
    config.output = folder.to_owned();
    config.pipeline.replicas = 1;
    let devices = cpu_devices(config.pipeline.devices());
    let cluster = presets::cluster("cpu").expect("the preset is built in");
    let cost = Arc::new(Table(uses.clone()));
    let planning = Planning::on_ranks(model, &cluster, cost, config.pipeline.ranks)?;
    let partition = planning.partition().clone();
    let plans = OnDemand { planning, submitted: VecDeque::new(), uses: uses.clone() };
    let mut trainer = Trainer::<Cpu>::new(TrainerInit {
        config: &config,
        model,
        partition: &partition,
        plans: Box::new(plans),
        data: data::open(model, &uses)?,
        devices,
        connections: Connections::default(),
        modalities: Modalities::default(),
    })?;
    trainer.run(&mut ())?;
    uses.check(&["plan source"])
}
