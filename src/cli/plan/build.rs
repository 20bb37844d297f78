//! From a model, a cluster and a batch to the task graph of one replica, and the step around its plan.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use dip::emulate::step_figures;
use dip::plan::{ModuleId, Placement, PlanError, Route, fastest_planning, routed_partitions};
use dip::prelude::*;

use super::{PlanCommand, RouteChoice};
use crate::cli::{inputs, sizing};

/// A batch of a model, ready to be searched.
pub struct Built {
    pub graph: TaskGraph,
    pub cluster: ClusterSpec,
    planning: Planning,
    cost: Arc<AnalyticCost>,
    batch: BatchMeta,
}

impl Built {
    /// The task graph of one batch of the model of this name.
    pub fn new(command: &PlanCommand, name: &str) -> Result<Self> {
        let mut model = inputs::model(name)?;
        if command.batch.is_some() && command.size.microbatches.is_some() {
            bail!(
                "--microbatches sizes a sampled batch, but --batch gives one; leave one of them out"
            );
        }
        command.size.apply(&mut model)?;
        let mut cluster = inputs::cluster(&command.cluster)?;
        sizing::warn(&model, &cluster);
        if !(0.0..1.0).contains(&command.reserve) {
            bail!(
                "--reserve is {}, but must be at least 0 and below 1; 0.06 keeps 6 % free",
                command.reserve
            );
        }
        let memory = &mut cluster.device.memory_bytes;
        *memory = memory.saturating_sub(Bytes((memory.0 as f64 * command.reserve) as u64));
        let batch = match &command.batch {
            Some(path) => inputs::batch(path, command.iteration)?,
            None => dip::emulate::sample(&model, 1, command.search.seed, None)
                .pop()
                .context("nothing was sampled; give --batch")?,
        };
        let cost = Arc::new(AnalyticCost::new(&model, &cluster));
        let schedule = command.schedule()?;
        let planning = Planning::new(&model, &cluster, cost.clone())?;
        let partitions = command.partitions(&planning, &*schedule)?;
        partitions.first().into_iter().for_each(sizing::warn_empty_ranks);
        let weight_split = command.weight_split.unwrap_or_else(|| schedule.splits_weights());
        let planning = planning.with_weight_split(weight_split);
        let plannings = partitions.into_iter().map(|p| planning.clone().with_partition(p));
        let env = command.environment();
        let planning = fastest_planning(plannings.collect(), &batch, &*schedule, &env)
            .map_err(|error| explained(error, &planning, &batch))?;
        let graph = planning.graph(&batch)?;
        Ok(Self { graph, cluster, planning, cost, batch })
    }

    /// Adds the step of the run to a plan of the graph.
    pub fn add_step(&self, plan: &mut Plan) {
        let partition = self.planning.partition();
        plan.step = Some(step_figures(&self.cost, partition, &self.batch, plan));
    }

    /// Says what a user of a model and a cluster can do about a plan that does not fit.
    pub fn explained(&self, error: ScheduleError) -> anyhow::Error {
        explained(error.into(), &self.planning, &self.batch)
    }
}

/// Names the fields of model and cluster behind a memory limit. The task graph is no file of the user.
fn explained(error: PlanError, planning: &Planning, batch: &BatchMeta) -> anyhow::Error {
    let PlanError::Schedule(ScheduleError::Infeasible { rank, needed, limit }) = error else {
        return error.into();
    };
    let model = planning.model();
    let fixed = planning.graph(batch).ok().and_then(|g| g.static_bytes.get(rank.index()).copied());
    let fixed = fixed.map_or_else(String::new, |bytes| {
        format!(
            ", {bytes} of it for weights, gradients, optimiser state and the largest running layer"
        )
    });
    anyhow::anyhow!(
        "rank {rank} needs at least {needed}{fixed}; a device of {} has device.memory_bytes = {limit}, which is {} too \
         little at data {}, tensor {}, pipeline {}; raise --pipeline, --tensor or --data, or plan shorter sequences",
        planning.cluster().name,
        needed.saturating_sub(limit),
        model.parallel.data,
        model.parallel.tensor,
        planning.ranks()
    )
}

impl PlanCommand {
    /// The partitions to choose from, at least one.
    fn partitions(&self, planning: &Planning, schedule: &dyn Schedule) -> Result<Vec<Partition>> {
        let factor = self.segments.unwrap_or_else(|| schedule.segment_factor());
        let mut partitioner = planning.partitioner().with_segment_factor(factor);
        for SubMicrobatch { module, instances } in &self.sub_microbatch {
            let model = planning.model();
            let Some((id, _)) = model.module(module) else {
                let names: Vec<_> = model.modules.iter().map(|m| m.name.as_str()).collect();
                bail!(
                    "--sub-microbatch has {module:?}, but the modules are {}; correct the name",
                    names.join(", ")
                );
            };
            partitioner = partitioner.with_sub_microbatch(id, *instances);
        }
        let placement = schedule.placement();
        let routed = placement == Placement::ModalityAware;
        let best = routed && schedule.searches() && self.order.is_none();
        match self.route.unwrap_or(if best { RouteChoice::Best } else { RouteChoice::Loop }) {
            RouteChoice::Best if routed => Ok(routed_partitions(&partitioner)?),
            RouteChoice::Wave if routed => {
                let modules = (0..planning.model().modules.len()).map(ModuleId::from);
                let waves = modules.fold(partitioner, |all, m| all.with_route(m, Route::Wave));
                Ok(vec![waves.partition()?])
            }
            RouteChoice::Best | RouteChoice::Loop | RouteChoice::Wave => {
                Ok(vec![partitioner.place(placement)?])
            }
        }
    }
}

/// The instances of a sub-microbatch of one module, as `vision=12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubMicrobatch {
    pub module: String,
    pub instances: u32,
}

impl std::str::FromStr for SubMicrobatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('=').and_then(|(module, instances)| {
            let instances = instances.trim().parse().ok().filter(|&n| n > 0)?;
            Some(Self { module: module.trim().into(), instances })
        });
        parsed
            .ok_or_else(|| "must be a module and a number of at least 1, such as vision=12".into())
    }
}
