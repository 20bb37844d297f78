//! Contiguous stages under a memory limit, by dynamic programming.

use std::ops::Range;

use dip_core::{ChunkQuery, MicrobatchMeta, ModuleId, StageQuery};

use crate::systems::deployment::SystemError;
use crate::systems::{Recompute, SystemInputs};

/// The layers of one rank, and their recomputation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LayerStage {
    pub(super) layers: Range<usize>,
    pub(super) recompute: Recompute,
}

/// Seconds and bytes of one layer under each strategy, or sums of them.
#[derive(Debug, Clone, Copy, Default)]
struct LayerCosts {
    kept_s: f64,
    full_s: f64,
    selective_s: f64,
    offload_s: f64,
    kept_bytes: f64,
    full_bytes: f64,
    selective_bytes: f64,
    offload_bytes: f64,
    static_bytes: f64,
}

/// The microbatches that costs are computed for.
#[derive(Clone, Copy)]
struct Representatives<'a> {
    mean: &'a MicrobatchMeta,
    heavy: &'a MicrobatchMeta,
}

/// The layers of all modules, one after another, with prefix sums of their costs.
pub(super) struct Layers {
    /// Module and index of each layer.
    of: Vec<(ModuleId, u32)>,
    sums: Vec<LayerCosts>,
    /// The working set of each layer.
    working: Vec<f64>,
    limit: f64,
    options: Vec<Recompute>,
}

impl Layers {
    /// The costs of all layers: seconds of the microbatch `mean`, activations of `heavy`.
    pub(super) fn new(
        inputs: &SystemInputs<'_>,
        mean: &MicrobatchMeta,
        heavy: &MicrobatchMeta,
    ) -> Result<Self, SystemError> {
        let mut layers = Self {
            of: Vec::new(),
            sums: vec![LayerCosts::default()],
            working: Vec::new(),
            limit: inputs.planning.cluster().device.memory_bytes.0 as f64,
            options: Recompute::options(inputs.offload),
        };
        for module in inputs.model().topological_order() {
            for layer in 0..inputs.model().modules[module.index()].layers {
                let costs = layer_costs(inputs, module, layer, Representatives { mean, heavy })?;
                layers.working.push(working(inputs, module, layer, heavy));
                let last = layers.sums[layers.sums.len() - 1];
                layers.of.push((module, layer));
                layers.sums.push(last.plus(costs));
            }
        }
        Ok(layers)
    }

    /// Cuts the layers into stages so that the longest stage is as short as possible. `None` if nothing fits.
    pub(super) fn stages(&self, ranks: u32) -> Option<Vec<LayerStage>> {
        let (n, ranks) = (self.of.len(), ranks as usize);
        // `best[r][j]`: with the first `j` layers in `r` stages, the seconds of the longest stage and the first layer of the last one.
        let mut best = vec![vec![(f64::INFINITY, 0); n + 1]; ranks + 1];
        best[0][0] = (0.0, 0);
        for r in 1..=ranks {
            for j in r..=n {
                let option = |i: usize| {
                    let before = best[r - 1][i].0;
                    let own = self.fastest(i..j, ranks - r + 1).map_or(f64::INFINITY, |s| s.1);
                    (before.max(own), i)
                };
                let least = (r - 1..j).map(option).min_by(|a, b| a.0.total_cmp(&b.0));
                best[r][j] = least.unwrap_or((f64::INFINITY, 0));
            }
        }
        let mut stages = Vec::with_capacity(ranks);
        let mut end = n;
        for r in (1..=ranks).rev() {
            let start = best[r][end].1;
            let (recompute, _) = self.fastest(start..end, ranks - r + 1)?;
            stages.push(LayerStage { layers: start..end, recompute });
            end = start;
        }
        stages.reverse();
        Some(stages)
    }

    /// The fastest recomputation of a stage that fits with `in_flight` microbatches, and its seconds.
    fn fastest(&self, layers: Range<usize>, in_flight: usize) -> Option<(Recompute, f64)> {
        let sum = self.sums[layers.end].minus(self.sums[layers.start]);
        let n = layers.len();
        let working = self.working[layers].iter().copied().fold(0.0, f64::max);
        let options = self.options.iter().filter_map(|&recompute| {
            let mix = |eighths: u32, some: f64, kept: f64| {
                let share = (n * eighths as usize / 8) as f64 / n as f64;
                share * some + (1.0 - share) * kept
            };
            let (seconds, bytes) = match recompute {
                Recompute::None => (sum.kept_s, sum.kept_bytes),
                Recompute::Selective => (sum.selective_s, sum.selective_bytes),
                Recompute::Full(e) => {
                    (mix(e, sum.full_s, sum.kept_s), mix(e, sum.full_bytes, sum.kept_bytes))
                }
                Recompute::Offload(e) => {
                    (mix(e, sum.offload_s, sum.kept_s), mix(e, sum.offload_bytes, sum.kept_bytes))
                }
            };
            let fits = sum.static_bytes + working + in_flight as f64 * bytes <= self.limit;
            fits.then_some((recompute, seconds))
        });
        options.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The layers of a stage, module by module.
    pub(super) fn parts(&self, layers: Range<usize>) -> Vec<(ModuleId, Range<u32>)> {
        let runs = self.of[layers].chunk_by(|a, b| a.0 == b.0);
        runs.map(|run| (run[0].0, run[0].1..run[run.len() - 1].1 + 1)).collect()
    }
}

fn query<'a>(inputs: &SystemInputs<'a>, module: ModuleId, layer: u32) -> ChunkQuery<'a> {
    ChunkQuery::new(inputs.planning.model(), module, layer..layer + 1)
}

/// The working set of one layer.
fn working(inputs: &SystemInputs<'_>, module: ModuleId, layer: u32, meta: &MicrobatchMeta) -> f64 {
    let (_, instances) = inputs.model().instances(module, meta);
    let workload = inputs.model().workload(module, meta, 0..instances);
    inputs.planning.cost().working_bytes(&query(inputs, module, layer), workload).0 as f64
}

/// The costs of one layer.
fn layer_costs(
    inputs: &SystemInputs<'_>,
    module: ModuleId,
    layer: u32,
    Representatives { mean, heavy }: Representatives<'_>,
) -> Result<LayerCosts, SystemError> {
    let model = inputs.model();
    let chunk = query(inputs, module, layer);
    let under = |recompute: Recompute, meta: &MicrobatchMeta| {
        let (_, instances) = model.instances(module, meta);
        if instances == 0 {
            return Ok((0.0, 0.0));
        }
        let workload = model.workload(module, meta, 0..instances);
        let strategy = &recompute.strategy(0, 1);
        let query = StageQuery { chunk: chunk.clone(), workload, strategy };
        let cost = inputs.planning.cost().stage(&query).map_err(dip_core::BuildError::Cost)?;
        Ok::<_, SystemError>((cost.forward.0 + cost.backward.0, cost.activation_bytes.0 as f64))
    };
    Ok(LayerCosts {
        kept_s: under(Recompute::None, mean)?.0,
        full_s: under(Recompute::Full(8), mean)?.0,
        selective_s: under(Recompute::Selective, mean)?.0,
        offload_s: under(Recompute::Offload(8), mean)?.0,
        kept_bytes: under(Recompute::None, heavy)?.1,
        full_bytes: under(Recompute::Full(8), heavy)?.1,
        selective_bytes: under(Recompute::Selective, heavy)?.1,
        offload_bytes: under(Recompute::Offload(8), heavy)?.1,
        static_bytes: inputs.planning.cost().static_bytes(&chunk).0 as f64,
    })
}

impl LayerCosts {
    fn plus(self, o: Self) -> Self {
        self.with(o, |a, b| a + b)
    }

    fn minus(self, o: Self) -> Self {
        self.with(o, |a, b| a - b)
    }

    fn with(self, o: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            kept_s: f(self.kept_s, o.kept_s),
            full_s: f(self.full_s, o.full_s),
            selective_s: f(self.selective_s, o.selective_s),
            offload_s: f(self.offload_s, o.offload_s),
            kept_bytes: f(self.kept_bytes, o.kept_bytes),
            full_bytes: f(self.full_bytes, o.full_bytes),
            selective_bytes: f(self.selective_bytes, o.selective_bytes),
            offload_bytes: f(self.offload_bytes, o.offload_bytes),
            static_bytes: f(self.static_bytes, o.static_bytes),
        }
    }
}
