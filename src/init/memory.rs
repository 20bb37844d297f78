//! The memory of the fullest rank of a run, by the analytic costs.

use std::sync::Arc;

use dip_burn::train::RunConfig;
use dip_core::{
    BatchMeta, Bytes, ClusterSpec, LayerStrategy, ModelSpec, Partition, PlanError, presets,
};
use dip_emu::AnalyticCost;
use dip_sched::{PlacementError, Planning};

use crate::run::RunError;

/// Costs that are not measured may be too low: this share of the memory stays free.
const RESERVE: f64 = 0.1;

/// How a run fits the memory of its ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// All activations are kept.
    Kept,
    /// Some activations are computed again in the backward.
    Recomputed,
    /// It does not fit.
    No,
}

/// Memory of the rank that needs most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// Weights, and their copy in lower precision.
    pub weights: Bytes,
    /// Gradients of trained weights.
    pub gradients: Bytes,
    /// Two moments of trained weights.
    pub optimizer: Bytes,
    /// Activations of the microbatches in flight, if all are kept.
    pub activations: Bytes,
    /// Activations of one full microbatch, if as many as possible are computed again.
    pub least_activations: Bytes,
}

impl MemoryUse {
    /// The memory of a run of `config` with `model`, to which the run has been applied.
    ///
    /// # Errors
    /// [`RunError`] if the model cannot be placed.
    pub fn of(model: &ModelSpec, config: &RunConfig) -> Result<Self, RunError> {
        let mut model = model.clone();
        let ranks = config.pipeline.ranks;
        (model.parallel.data, model.parallel.tensor, model.parallel.pipeline) = (1, 1, ranks);
        let bytes = config.pipeline.precision.element_bytes() as u32;
        let cluster = cluster(bytes);
        let strategies = [LayerStrategy::Keep, LayerStrategy::Selective, LayerStrategy::Full];
        let cost = AnalyticCost::new(&model, &cluster).with_strategies(&strategies);
        let planning = Planning::on_ranks(&model, &cluster, Arc::new(cost), ranks);
        let planning = planning.map_err(PlacementError::from)?;
        let video = config.data.video_of_microbatch(&model);
        let failed = |error| PlacementError::from(PlanError::from(error));
        let least = planning.memory_need(video).map_err(failed)?;
        let full = BatchMeta { iteration: 0, microbatches: vec![model.filled(1.0)] };
        let graph = planning.graph(&full).map_err(failed)?;
        let mut kept = vec![Bytes::ZERO; ranks as usize];
        for pair in graph.pairs() {
            let forward = graph.task(pair.forward);
            kept[forward.rank.index()] += forward.activation_bytes;
        }
        let microbatches = config.data.microbatches.unwrap_or(model.microbatches);
        let of_rank = |rank: usize| {
            let in_flight = microbatches.min(ranks - rank as u32);
            let copy = if bytes < 4 { u64::from(bytes) } else { 0 };
            let (weights, trained) = weights(&model, planning.partition(), rank);
            let fixed = graph.static_bytes[rank];
            Self {
                weights: Bytes(weights.saturating_mul(4 + copy)),
                gradients: Bytes(trained.saturating_mul(4)),
                optimizer: Bytes(trained.saturating_mul(8)),
                activations: Bytes(kept[rank].0.saturating_mul(in_flight.into())),
                least_activations: Bytes(least[rank].0.saturating_sub(fixed.0)),
            }
        };
        let all = (0..ranks as usize).map(of_rank);
        Ok(all.max_by_key(|rank| rank.total()).unwrap_or_default())
    }

    /// All of it, with the activations that are kept.
    pub fn total(&self) -> Bytes {
        self.fixed() + self.activations
    }

    /// All of it, with the least activations.
    pub fn least_total(&self) -> Bytes {
        self.fixed() + self.least_activations
    }

    fn fixed(&self) -> Bytes {
        self.weights + self.gradients + self.optimizer
    }

    /// How it fits a limit, with a reserve; everything fits without a limit.
    pub fn fit(&self, limit: Option<Bytes>) -> Fit {
        let Some(limit) = limit else { return Fit::Kept };
        let fits = |bytes: Bytes| bytes.0 as f64 <= limit.0 as f64 * (1.0 - RESERVE);
        match (fits(self.total()), fits(self.least_total())) {
            (true, _) => Fit::Kept,
            (false, true) => Fit::Recomputed,
            (false, false) => Fit::No,
        }
    }
}

/// Weights of a rank, and those of them that are trained.
fn weights(model: &ModelSpec, partition: &Partition, rank: usize) -> (u64, u64) {
    let own = partition.queries(model).filter(|(of, _)| of.index() == rank);
    own.fold((0, 0), |(all, trained), (_, chunk)| {
        (all + chunk.parameters(), trained + chunk.trained_parameters())
    })
}

/// A device without a limit that computes with values of so many bytes.
fn cluster(element_bytes: u32) -> ClusterSpec {
    let mut cluster = presets::cluster("cpu").expect("the preset is built in");
    cluster.device.element_bytes = element_bytes;
    cluster.device.memory_bytes = Bytes::UNLIMITED;
    cluster
}
