//! Fully sharded data parallelism (FSDP2, ZeRO-3): a step without a pipeline, to compare with.
//!
//! Every group of `tensor` devices trains microbatches of its own. Weights are gathered layer by layer, gradients are reduced
//! and scattered layer by layer; both overlap with the computation of their neighbours. Collectives keep the groups in step, so
//! a layer takes as long as the slowest group computes, or as its collectives take.

use dip_core::{
    BatchMeta, Bytes, ChunkQuery, ClusterSpec, CostError, CostModel, LayerStrategy, MicrobatchMeta,
    ModelSpec, ModuleId, Seconds, StageCost, StageQuery, Strategy,
};

use super::analytic::AnalyticCost;
use crate::operators::Machine;

/// Bytes of a gradient in a reduction.
const GRADIENT_BYTES: u64 = 4;
/// Layers whose whole weights a device holds at once: the one that computes and the one that is gathered.
const GATHERED: u64 = 2;

/// One step of FSDP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FsdpStep {
    /// Seconds of the step.
    pub seconds: Seconds,
    /// Share of it in which the devices do not compute, on average.
    pub bubble_ratio: f64,
    /// Most that a device holds.
    pub peak: Bytes,
    /// Devices that share each layer.
    pub tensor: u32,
}

/// The step of a batch on the `tensor * pipeline` devices of a replica, with the tensor degree that does best; `None` where
/// none fits in memory. Equally heavy microbatches run side by side, and what is computed again is what costs least.
///
/// # Errors
/// As [`AnalyticCost`].
pub fn fsdp(
    model: &ModelSpec,
    cluster: &ClusterSpec,
    batch: &BatchMeta,
) -> Result<Option<FsdpStep>, CostError> {
    let devices = model.parallel.tensor.max(1) * model.parallel.pipeline.max(1);
    let mut best: Option<FsdpStep> = None;
    for tensor in (0..).map(|i| 1 << i).take_while(|&t| t <= cluster.devices_per_node.min(devices))
    {
        let mut spread = model.clone();
        spread.parallel.tensor = tensor;
        let step = Fsdp::new(&spread, cluster, devices / tensor).step(batch)?;
        best = match (best, step) {
            (Some(b), Some(s)) if s.seconds < b.seconds => Some(s),
            (None, found) => found,
            (kept, _) => kept,
        };
    }
    Ok(best)
}

/// One layer of one group for one microbatch.
#[derive(Debug, Clone, Copy, Default)]
struct Layer {
    forward: f64,
    backward: f64,
    /// What computing it again adds to the backward, and the bytes that this saves.
    again: f64,
    saved: f64,
    kept: f64,
    working: f64,
    recomputed: bool,
}

struct Fsdp<'a> {
    model: &'a ModelSpec,
    cost: AnalyticCost,
    machine: Machine,
    memory: f64,
    groups: u32,
    /// Module, layer and weights of every layer.
    layers: Vec<(ModuleId, u32, u64)>,
}

impl<'a> Fsdp<'a> {
    fn new(model: &'a ModelSpec, cluster: &ClusterSpec, groups: u32) -> Self {
        let mut layers = Vec::new();
        for module in model.topological_order() {
            let count = model.modules[module.index()].layers;
            for layer in 0..count {
                let weights = ChunkQuery::new(model, module, layer..layer + 1).parameters();
                layers.push((module, layer, weights.div_ceil(model.parallel.tensor.into())));
            }
        }
        Self {
            model,
            cost: AnalyticCost::new(model, cluster),
            machine: Machine::new(cluster, model.parallel.tensor),
            memory: cluster.device.memory_bytes.0 as f64,
            groups: groups.max(1),
            layers,
        }
    }

    fn step(&self, batch: &BatchMeta) -> Result<Option<FsdpStep>, CostError> {
        let mut rows =
            batch.microbatches.iter().map(|m| self.row(m)).collect::<Result<Vec<_>, _>>()?;
        let total = |row: &[Layer]| row.iter().map(|l| l.forward + l.backward).sum::<f64>();
        rows.sort_by(|a, b| total(b).total_cmp(&total(a)));
        let fixed = self.static_bytes();
        let (mut seconds, mut computed, mut peak) = (0.0, 0.0, fixed);
        for row in &mut rows {
            let fixed = fixed + row.iter().map(|l| l.working).fold(0.0, f64::max);
            let Some(held) = fit(row, self.memory - fixed) else { return Ok(None) };
            peak = f64::max(peak, fixed + held);
        }
        for round in rows.chunks(self.groups as usize) {
            for (i, &(_, _, weights)) in self.layers.iter().enumerate() {
                let slowest = |of: &dyn Fn(&Layer) -> f64| {
                    round.iter().map(|row| of(&row[i])).fold(0.0, f64::max)
                };
                let gather = self.collective(weights, 2);
                let scatter = self.collective(weights, GRADIENT_BYTES);
                seconds += slowest(&|l| l.forward).max(gather);
                seconds += slowest(&|l| l.time_back()).max(gather + scatter);
            }
            computed += round.iter().flatten().map(|l| l.forward + l.time_back()).sum::<f64>();
        }
        Ok(Some(FsdpStep {
            seconds: Seconds(seconds),
            bubble_ratio: 1.0 - computed / (f64::from(self.groups) * seconds),
            peak: Bytes(peak as u64),
            tensor: self.model.parallel.tensor,
        }))
    }

    /// What the layers take for one microbatch.
    fn row(&self, meta: &MicrobatchMeta) -> Result<Vec<Layer>, CostError> {
        self.layers.iter().map(|&(module, layer, _)| self.layer(module, layer, meta)).collect()
    }

    fn layer(&self, module: ModuleId, i: u32, meta: &MicrobatchMeta) -> Result<Layer, CostError> {
        let (_, instances) = self.model.instances(module, meta);
        if instances == 0 {
            return Ok(Layer::default());
        }
        let workload = self.model.workload(module, meta, 0..instances);
        let under = |strategy: LayerStrategy| -> Result<StageCost, CostError> {
            let strategy = &Strategy::of_layers(&[strategy]);
            let chunk = ChunkQuery::new(self.model, module, i..i + 1);
            self.cost.stage(&StageQuery { chunk, workload, strategy })
        };
        let (keep, full) = (under(LayerStrategy::Keep)?, under(LayerStrategy::Full)?);
        Ok(Layer {
            forward: keep.forward.0,
            backward: keep.backward.0,
            again: (full.backward.0 - keep.backward.0).max(0.0),
            saved: (keep.activation_bytes.0 as f64 - full.activation_bytes.0 as f64).max(0.0),
            kept: keep.activation_bytes.0 as f64,
            working: self
                .cost
                .working_bytes(&ChunkQuery::new(self.model, module, i..i + 1), workload)
                .0 as f64,
            recomputed: false,
        })
    }

    /// The shard of weights, gradients and optimiser state, and the layers that are gathered.
    fn static_bytes(&self) -> f64 {
        let modules = self.model.modules.iter().enumerate();
        let whole = modules.map(|(m, spec)| {
            let all = ChunkQuery::new(self.model, ModuleId::from(m), 0..spec.layers);
            self.cost.static_bytes(&all).0 as f64
        });
        let gathered = self.layers.iter().map(|l| l.2).max().unwrap_or(0) * GATHERED * 2;
        whole.sum::<f64>() / f64::from(self.groups) + gathered as f64
    }

    /// All groups gather, or reduce and scatter, `weights` values of `each` bytes.
    fn collective(&self, weights: u64, each: u64) -> f64 {
        if self.groups == 1 {
            return 0.0;
        }
        let in_node = self.groups.saturating_mul(self.model.parallel.tensor)
            <= self.machine.cluster().devices_per_node;
        let sent = weights - weights / u64::from(self.groups);
        self.machine.transfer(in_node, Bytes(sent.saturating_mul(each))).0
    }
}

impl Layer {
    fn time_back(&self) -> f64 {
        self.backward + if self.recomputed { self.again } else { 0.0 }
    }
}

/// Computes layers again, those first that save most for their time, until the rest fits; gives the bytes held.
fn fit(row: &mut [Layer], room: f64) -> Option<f64> {
    let mut held: f64 = row.iter().map(|l| l.kept).sum();
    let mut order: Vec<usize> = (0..row.len()).filter(|&i| row[i].saved > 0.0).collect();
    let worth = |l: &Layer| l.saved / l.again.max(f64::MIN_POSITIVE);
    order.sort_by(|&a, &b| worth(&row[b]).total_cmp(&worth(&row[a])));
    for i in order {
        if held <= room {
            break;
        }
        held -= row[i].saved;
        row[i].recomputed = true;
    }
    (held <= room).then_some(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::presets;

    fn step(images: &[u32]) -> FsdpStep {
        let meta = |&images: &u32| MicrobatchMeta {
            images,
            text_tokens: 8192 - 169 * u64::from(images),
            ..MicrobatchMeta::default()
        };
        let batch = BatchMeta { iteration: 0, microbatches: images.iter().map(meta).collect() };
        let (model, cluster) = (presets::model("vlm-s"), presets::cluster("h800"));
        fsdp(&model.unwrap(), &cluster.unwrap(), &batch).unwrap().unwrap()
    }

    #[test]
    fn one_heavy_microbatch_holds_all_devices_up() {
        let (even, uneven) = (step(&[8; 16]), step(&[[48; 1].as_slice(), &[5; 15]].concat()));
        assert!(uneven.seconds.0 > 1.2 * even.seconds.0, "{even:?} {uneven:?}");
    }

    #[test]
    fn a_step_fits_in_memory_and_takes_at_least_its_computation() {
        let step = step(&[40, 10, 3, 0, 12, 7, 48, 1, 40, 10, 3, 0, 12, 7, 48, 1]);
        assert!(step.peak.0 <= 80_000_000_000 && step.bubble_ratio >= 0.0, "{step:?}");
    }
}
