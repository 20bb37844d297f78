//! Fully sharded data parallelism (FSDP2, ZeRO-3): a step without a pipeline, to compare with.
//!
//! Each group of `tensor` devices trains its own microbatches. Weights are gathered layer by layer; gradients are reduced and
//! scattered layer by layer. Both overlap with the computation of neighbouring layers. Collectives keep the groups in step, so
//! a layer takes as long as the slowest group computes, or as long as its collectives.

use dip_core::{
    BatchMeta, Bytes, ChunkQuery, ClusterSpec, CostError, CostModel, LayerStrategy, MicrobatchMeta,
    ModelSpec, ModuleId, Seconds, StageCost, StageQuery, Strategy,
};

use super::analytic::AnalyticCost;
use crate::operators::Machine;

/// Bytes of a weight in a gather.
const WEIGHT_BYTES: u64 = 2;
/// Bytes of a gradient in a reduction.
const GRADIENT_BYTES: u64 = 4;
/// The number of layers whose gathered weights a device holds: one computes while the next is gathered.
const GATHERED_LAYERS: u64 = 2;

/// One step of FSDP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FsdpStep {
    /// The time of the step.
    pub seconds: Seconds,
    /// The mean share of the step in which a device does not compute.
    pub bubble_ratio: f64,
    /// The peak memory of a device.
    pub peak: Bytes,
    /// The number of devices that share each layer.
    pub tensor: u32,
}

/// Returns the FSDP step of a batch on the `tensor * pipeline` devices of a replica, with the fastest tensor degree. `None` if
/// no degree fits in memory.
///
/// Microbatches of similar weight run at the same time. If memory is short, layers recompute; those that save the most bytes per
/// second come first.
///
/// # Errors
/// Same as [`CostModel::stage`] of [`AnalyticCost`].
pub fn fsdp(
    model: &ModelSpec,
    cluster: &ClusterSpec,
    batch: &BatchMeta,
) -> Result<Option<FsdpStep>, CostError> {
    let devices = model.parallel.tensor.max(1) * model.parallel.pipeline.max(1);
    let mut best: Option<FsdpStep> = None;
    for tensor in (0..).map(|i| 1 << i).take_while(|&t| t <= cluster.devices_per_node.min(devices))
    {
        let mut model = model.clone();
        model.parallel.tensor = tensor;
        if model.indivisible(tensor).is_some() {
            continue;
        }
        if let Some(step) = Fsdp::new(&model, cluster, devices / tensor).step(batch)?
            && best.is_none_or(|best| step.seconds < best.seconds)
        {
            best = Some(step);
        }
    }
    Ok(best)
}

/// A layer of the model.
#[derive(Debug, Clone, Copy)]
struct ModelLayer {
    module: ModuleId,
    index: u32,
    /// The number of weights on one of the devices that share the layer.
    weights: u64,
}

/// The cost of one layer for one microbatch.
#[derive(Debug, Clone, Copy, Default)]
struct LayerCost {
    forward_s: f64,
    backward_s: f64,
    /// The extra time of the backward if the layer recomputes.
    recompute_s: f64,
    /// The bytes that recomputing saves.
    saved_bytes: f64,
    kept_bytes: f64,
    working_bytes: f64,
    recomputes: bool,
}

impl LayerCost {
    fn backward_with_recompute_s(&self) -> f64 {
        self.backward_s + if self.recomputes { self.recompute_s } else { 0.0 }
    }
}

struct Fsdp<'a> {
    model: &'a ModelSpec,
    cost: AnalyticCost,
    machine: Machine,
    memory_bytes: f64,
    /// The number of groups of devices that share layers.
    groups: u32,
    layers: Vec<ModelLayer>,
}

impl<'a> Fsdp<'a> {
    fn new(model: &'a ModelSpec, cluster: &ClusterSpec, groups: u32) -> Self {
        let mut layers = Vec::new();
        for module in model.topological_order() {
            for index in 0..model.modules[module.index()].layers {
                let weights = ChunkQuery::new(model, module, index..index + 1).parameters();
                let weights = weights.div_ceil(model.parallel.tensor.into());
                layers.push(ModelLayer { module, index, weights });
            }
        }
        Self {
            model,
            cost: AnalyticCost::new(model, cluster),
            machine: Machine::new(cluster, model.parallel.tensor),
            memory_bytes: cluster.device.memory_bytes.0 as f64,
            groups: groups.max(1),
            layers,
        }
    }

    /// The step of a batch; `None` if a microbatch does not fit in memory.
    fn step(&self, batch: &BatchMeta) -> Result<Option<FsdpStep>, CostError> {
        let mut microbatches = batch
            .microbatches
            .iter()
            .map(|meta| self.microbatch(meta))
            .collect::<Result<Vec<_>, _>>()?;
        let total =
            |costs: &[LayerCost]| costs.iter().map(|c| c.forward_s + c.backward_s).sum::<f64>();
        microbatches.sort_by(|a, b| total(b).total_cmp(&total(a)));
        let fixed = self.static_bytes();
        let mut peak = fixed;
        for costs in &mut microbatches {
            let fixed = fixed + costs.iter().map(|c| c.working_bytes).fold(0.0, f64::max);
            let Some(held) = recompute_to_fit(costs, self.memory_bytes - fixed) else {
                return Ok(None);
            };
            peak = f64::max(peak, fixed + held);
        }
        let (mut seconds, mut computed) = (0.0, 0.0);
        for round in microbatches.chunks(self.groups as usize) {
            seconds = self.add_round(seconds, round);
            computed += round
                .iter()
                .flatten()
                .map(|c| c.forward_s + c.backward_with_recompute_s())
                .sum::<f64>();
        }
        Ok(Some(FsdpStep {
            seconds: Seconds(seconds),
            bubble_ratio: 1.0 - computed / (f64::from(self.groups) * seconds),
            peak: Bytes(peak as u64),
            tensor: self.model.parallel.tensor,
        }))
    }

    /// Adds the time of a round, in which each group trains one microbatch, to `seconds`.
    fn add_round(&self, mut seconds: f64, round: &[Vec<LayerCost>]) -> f64 {
        for (i, layer) in self.layers.iter().enumerate() {
            let slowest = |time: fn(&LayerCost) -> f64| {
                round.iter().map(|costs| time(&costs[i])).fold(0.0, f64::max)
            };
            let gather = self.collective(layer.weights, WEIGHT_BYTES);
            let scatter = self.collective(layer.weights, GRADIENT_BYTES);
            seconds += slowest(|c| c.forward_s).max(gather);
            seconds += slowest(LayerCost::backward_with_recompute_s).max(gather + scatter);
        }
        seconds
    }

    /// The cost of every layer for one microbatch.
    fn microbatch(&self, meta: &MicrobatchMeta) -> Result<Vec<LayerCost>, CostError> {
        self.layers.iter().map(|&layer| self.layer(layer, meta)).collect()
    }

    fn layer(&self, layer: ModelLayer, meta: &MicrobatchMeta) -> Result<LayerCost, CostError> {
        let (_, instances) = self.model.instances(layer.module, meta);
        if instances == 0 {
            return Ok(LayerCost::default());
        }
        let workload = self.model.workload(layer.module, meta, 0..instances);
        let chunk = ChunkQuery::new(self.model, layer.module, layer.index..layer.index + 1);
        let under = |strategy: LayerStrategy| -> Result<StageCost, CostError> {
            let strategy = &Strategy::of_layers(&[strategy]);
            self.cost.stage(&StageQuery { chunk: chunk.clone(), workload, strategy })
        };
        let (keep, full) = (under(LayerStrategy::Keep)?, under(LayerStrategy::Full)?);
        let (kept_bytes, full_bytes) =
            (keep.activation_bytes.0 as f64, full.activation_bytes.0 as f64);
        Ok(LayerCost {
            forward_s: keep.forward.0,
            backward_s: keep.backward.0,
            recompute_s: (full.backward.0 - keep.backward.0).max(0.0),
            saved_bytes: (kept_bytes - full_bytes).max(0.0),
            kept_bytes,
            working_bytes: self.cost.working_bytes(&chunk, workload).0 as f64,
            recomputes: false,
        })
    }

    /// A device's shard of weights, gradients and optimiser state, and the gathered layers.
    fn static_bytes(&self) -> f64 {
        let modules = self.model.modules.iter().enumerate();
        let whole = modules.map(|(m, spec)| {
            let all = ChunkQuery::new(self.model, ModuleId::from(m), 0..spec.layers);
            self.cost.static_bytes(&all).0 as f64
        });
        let largest = self.layers.iter().map(|layer| layer.weights).max().unwrap_or(0);
        let gathered = largest * GATHERED_LAYERS * WEIGHT_BYTES;
        whole.sum::<f64>() / f64::from(self.groups) + gathered as f64
    }

    /// The seconds in which all groups gather, or reduce and scatter, `values` values.
    fn collective(&self, values: u64, bytes_per_value: u64) -> f64 {
        if self.groups == 1 {
            return 0.0;
        }
        let sent = values - values / u64::from(self.groups);
        let bytes = Bytes(sent.saturating_mul(bytes_per_value));
        self.machine.ring(self.model.parallel.tensor, self.groups, bytes).0
    }
}

/// Makes layers recompute until the rest fits in `room_bytes`. Layers that save the most bytes per second come first. Returns
/// the bytes that are still held, or `None` if they do not fit.
fn recompute_to_fit(costs: &mut [LayerCost], room_bytes: f64) -> Option<f64> {
    let mut held: f64 = costs.iter().map(|c| c.kept_bytes).sum();
    let mut order: Vec<usize> = (0..costs.len()).filter(|&i| costs[i].saved_bytes > 0.0).collect();
    let saving = |c: &LayerCost| c.saved_bytes / c.recompute_s.max(f64::MIN_POSITIVE);
    order.sort_by(|&a, &b| saving(&costs[b]).total_cmp(&saving(&costs[a])));
    for i in order {
        if held <= room_bytes {
            break;
        }
        held -= costs[i].saved_bytes;
        costs[i].recomputes = true;
    }
    (held <= room_bytes).then_some(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::presets;

    fn step(images: &[u32]) -> FsdpStep {
        let meta = |&images: &u32| MicrobatchMeta {
            images: images.into(),
            text_tokens: 8192 - 169 * u64::from(images),
            ..MicrobatchMeta::default()
        };
        let batch = BatchMeta { iteration: 0, microbatches: images.iter().map(meta).collect() };
        let (model, cluster) = (presets::model("vlm-s"), presets::cluster("h800"));
        fsdp(&model.unwrap(), &cluster.unwrap(), &batch).unwrap().unwrap()
    }

    #[test]
    fn one_heavy_microbatch_delays_all_devices() {
        let (even, uneven) = (step(&[8; 16]), step(&[[48; 1].as_slice(), &[5; 15]].concat()));
        assert!(uneven.seconds.0 > 1.2 * even.seconds.0, "{even:?} {uneven:?}");
    }

    #[test]
    fn a_step_fits_in_memory_and_takes_at_least_its_computation() {
        let step = step(&[40, 10, 3, 0, 12, 7, 48, 1, 40, 10, 3, 0, 12, 7, 48, 1]);
        assert!(step.peak.0 <= 80_000_000_000 && step.bubble_ratio >= 0.0, "{step:?}");
    }
}
