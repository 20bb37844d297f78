//! The degrees of parallelism of a number of devices, and a bound on the step of each.

use std::sync::Arc;

use dip_core::{
    BatchMeta, Bytes, ClusterSpec, CostModel, LayerStrategy, ModelSpec, ModuleId, Parallelism,
    Seconds,
};
use dip_emu::AnalyticCost;
use dip_sched::{Planning, assign_microbatches};

use super::layout::{SIZE_SCALES, scaled};
use super::{TuneError, TuneSettings};

/// The model at some degrees, ready to be emulated.
pub(super) struct Sized {
    pub(super) planning: Planning,
    pub(super) cost: Arc<AnalyticCost>,
    /// The microbatches of the heaviest replica.
    pub(super) batch: BatchMeta,
    /// No layout of these degrees has a shorter step.
    pub(super) bound: Seconds,
}

/// All degrees that use the devices.
pub(super) struct Degrees {
    pub(super) sized: Vec<Sized>,
    pub(super) do_not_fit: Vec<Parallelism>,
}

impl Degrees {
    pub(super) fn of(
        model: &ModelSpec,
        cluster: &ClusterSpec,
        settings: &TuneSettings,
        batch: &BatchMeta,
    ) -> Result<Self, TuneError> {
        let devices = settings.devices;
        if devices == 0 || u64::from(devices) > cluster.devices() {
            let (available, cluster) = (cluster.devices(), cluster.name.clone());
            return Err(TuneError::Devices { devices, available, cluster });
        }
        let (mut sized, mut do_not_fit) = (Vec::new(), Vec::new());
        for parallel in candidates(model, cluster, settings) {
            let model = ModelSpec { parallel, ..model.clone() };
            let cost = Arc::new(cost(&model, cluster, settings));
            if cannot_fit(&model, cluster, &cost) {
                do_not_fit.push(parallel);
            } else {
                sized.push(Sized::new(&model, cluster, cost, batch)?);
            }
        }
        if sized.is_empty() && do_not_fit.is_empty() {
            let (per_node, microbatches) = (cluster.devices_per_node, settings.microbatches);
            return Err(TuneError::NoDegrees { devices, per_node, microbatches });
        }
        Ok(Self { sized, do_not_fit })
    }
}

/// Degrees whose product is the number of devices. Layers stay inside nodes, and every rank has a layer, every replica a microbatch.
fn candidates(
    model: &ModelSpec,
    cluster: &ClusterSpec,
    settings: &TuneSettings,
) -> Vec<Parallelism> {
    let layers: u32 = model.modules.iter().map(|m| m.layers).sum();
    let devices = settings.devices;
    let divisors = |of: u32| (1..=of).filter(move |&d| of.is_multiple_of(d));
    let shared =
        |tensor: &u32| *tensor <= cluster.devices_per_node && model.indivisible(*tensor).is_none();
    let all = divisors(devices).filter(shared).flat_map(|tensor| {
        let rest = devices / tensor;
        divisors(rest).map(move |pipeline| Parallelism { data: rest / pipeline, tensor, pipeline })
    });
    all.filter(|p| p.pipeline <= layers && p.data <= settings.microbatches).collect()
}

/// The costs of a model, as the settings allow.
pub(super) fn cost(
    model: &ModelSpec,
    cluster: &ClusterSpec,
    settings: &TuneSettings,
) -> AnalyticCost {
    let cost = AnalyticCost::new(model, cluster).with_replicas(settings.replicas);
    if settings.offload {
        return cost;
    }
    let strategies = LayerStrategy::ALL.into_iter().filter(|&s| s != LayerStrategy::Offload);
    cost.with_strategies(&strategies.collect::<Vec<_>>())
}

/// True if weights, gradients and optimiser state exceed the memory of all ranks together.
fn cannot_fit(model: &ModelSpec, cluster: &ClusterSpec, cost: &AnalyticCost) -> bool {
    let module = |m: usize| {
        let all = dip_core::ChunkQuery::new(model, ModuleId::from(m), 0..model.modules[m].layers);
        cost.static_bytes(&all)
    };
    let fixed: Bytes = (0..model.modules.len()).map(module).sum();
    let ranks = u64::from(model.parallel.pipeline);
    fixed.0 > cluster.device.memory_bytes.0.saturating_mul(ranks)
}

impl Sized {
    fn new(
        model: &ModelSpec,
        cluster: &ClusterSpec,
        cost: Arc<AnalyticCost>,
        all: &BatchMeta,
    ) -> Result<Self, TuneError> {
        let planning = Planning::new(model, cluster, cost.clone())?;
        let loads = planning.rank_loads(all).map_err(dip_sched::PartitionError::from)?;
        let replicas = assign_microbatches(&loads, model.parallel.data as usize);
        let load = |own: &Vec<usize>| own.iter().flat_map(|&k| &loads[k]).sum::<f64>();
        let heaviest = replicas.into_iter().max_by(|a, b| load(a).total_cmp(&load(b)));
        let microbatches = heaviest.unwrap_or_default();
        let microbatches = microbatches.into_iter().map(|k| all.microbatches[k].clone()).collect();
        let batch = BatchMeta { iteration: all.iteration, microbatches };
        let mut sized = Self { planning, cost, batch, bound: Seconds::ZERO };
        sized.bound = sized.bound()?;
        Ok(sized)
    }

    pub(super) fn parallel(&self) -> Parallelism {
        self.planning.model().parallel
    }

    /// Computation by the fastest strategies, shared equally by the ranks, and the mean update and gather of the ranks. Sums over
    /// layers do not depend on segments and routes, so the least over the sizes of sub-microbatches holds for every layout.
    fn bound(&self) -> Result<Seconds, TuneError> {
        let (model, ranks) = (self.planning.model(), f64::from(self.planning.ranks()));
        let mut least = f64::INFINITY;
        for scale in SIZE_SCALES {
            let partitioner = scaled(&self.planning, scale);
            let partition = partitioner.partition()?;
            let planning = self.planning.clone().with_partition(partition);
            let loads =
                planning.rank_loads(&self.batch).map_err(dip_sched::PartitionError::from)?;
            least = least.min(loads.iter().flatten().sum());
        }
        let whole = |(_, chunk): (_, dip_core::ChunkQuery<'_>)| {
            (self.cost.update(&chunk) + self.cost.gather(&chunk)).0
        };
        let after: f64 = self.planning.partition().queries(model).map(whole).sum();
        // Slightly lower, so that rounding never lifts the bound above a step.
        Ok(Seconds((least + after) / ranks * (1.0 - 1e-9)))
    }
}
