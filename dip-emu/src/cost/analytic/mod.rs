//! The analytic cost model: stages from operators, operators from the data sheet and fitted factors (paper section 3).

mod front;
mod part;
mod replicas;
mod reuse;

use std::sync::Arc;

use dip_core::profile::Part;
use dip_core::{
    Bytes, ChunkQuery, ClusterSpec, CostError, CostModel, LayerStrategy, ModelSpec, ModuleId,
    RankId, Seconds, StageCost, StageQuery, Strategy, Workload,
};

use self::front::{CANDIDATES, Choice, front};
use self::part::{ComputedGradients, PartCost, StageTotals};
use self::reuse::Reused;
use crate::modality::{DeviceLayout, ModalityOperators, OperatorTable, PartQuery, stream_bytes};
use crate::operators::{Dag, Machine, Operator, OperatorRule, Pass};

pub use self::replicas::{GradientOverlap, Replicas};

/// Bytes of a gradient. Gradients are summed in single precision.
const GRADIENT_BYTES: u64 = 4;

/// Seconds and bytes of stages from the operators of their layers.
///
/// The parts of a stage run one after another. Its backward computes the gradients of the inputs, then those of the weights,
/// which may run later ([`StageCost::weight`]). Equal parts are simulated once, across layers, ranks, microbatches and
/// iterations.
///
/// The cost of a stage leaves out the working set of the running layer ([`CostModel::working_bytes`]), the contention of
/// host copies for one link, and what replicas send each other ([`AnalyticCost::reduction`], [`AnalyticCost::gather`]).
pub struct AnalyticCost {
    model: ModelSpec,
    machine: Machine,
    layout: DeviceLayout,
    table: OperatorTable,
    strategies: Vec<LayerStrategy>,
    replicas: Replicas,
    parts: Reused<PartKey, PartCost>,
    fronts: Reused<FrontKey, Arc<Vec<StageCost>>>,
}

/// What the cost of a part depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PartKey {
    module: ModuleId,
    part: Part,
    work: Workload,
    gradients: ComputedGradients,
}

/// What the candidates of a chunk depend on: its layers, its ends and what it passes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FrontKey {
    layer: PartKey,
    layers: u32,
    /// The layers with windows, counted from the first of the chunk.
    windowed: Vec<u32>,
    stacked: usize,
    output_width: u64,
    first: bool,
    last: bool,
}

impl AnalyticCost {
    /// The cost of `model` on devices of `cluster`, with the degrees of parallelism of the model.
    pub fn new(model: &ModelSpec, cluster: &ClusterSpec) -> Self {
        let mut model = model.clone();
        // A model that was built by hand may have a degree of 0.
        let parallel = &mut model.parallel;
        (parallel.data, parallel.tensor) = (parallel.data.max(1), parallel.tensor.max(1));
        Self {
            machine: Machine::new(cluster, model.parallel.tensor),
            layout: DeviceLayout {
                tensor: model.parallel.tensor,
                element_bytes: cluster.device.element_bytes,
            },
            table: OperatorTable::default(),
            strategies: LayerStrategy::ALL.to_vec(),
            replicas: Replicas::default(),
            parts: Reused::new(true),
            fronts: Reused::new(true),
            model,
        }
    }

    /// Sets the operators of a modality from another crate. By default its layers are plain transformer layers.
    pub fn with_operators(
        mut self,
        modality: &str,
        operators: impl ModalityOperators + 'static,
    ) -> Self {
        self.table.add(modality, Arc::new(operators));
        self.forget();
        self
    }

    /// Sets a rule that takes precedence over the formula for operators.
    pub fn with_rule(mut self, rule: impl OperatorRule + 'static) -> Self {
        self.machine = self.machine.with_rule(Arc::new(rule));
        self.forget();
        self
    }

    /// Offers only these strategies as candidates. An empty list offers `keep`.
    pub fn with_strategies(mut self, strategies: &[LayerStrategy]) -> Self {
        self.strategies = strategies.to_vec();
        self.forget();
        self
    }

    /// Sets how replicas share the optimiser and sum gradients.
    pub fn with_replicas(mut self, replicas: Replicas) -> Self {
        self.replicas = replicas;
        self
    }

    /// The model.
    pub fn model(&self) -> &ModelSpec {
        &self.model
    }

    /// The cluster.
    pub fn cluster(&self) -> &ClusterSpec {
        self.machine.cluster()
    }

    /// How replicas share the optimiser and sum gradients.
    pub fn replicas(&self) -> Replicas {
        self.replicas
    }

    /// Sets whether equal parts are simulated only once, which is the default. The costs do not depend on it.
    pub fn with_reuse(mut self, reuse: bool) -> Self {
        (self.parts, self.fronts) = (Reused::new(reuse), Reused::new(reuse));
        self
    }

    /// The operators of one part of a module in one pass, and the time of each.
    pub fn operators(
        &self,
        module: ModuleId,
        part: Part,
        work: Workload,
        pass: Pass,
    ) -> Vec<(Operator, Seconds)> {
        let dag = self.dag(module, part, work);
        let timed = |op| (op, self.machine.latency(&op));
        dag.operators(pass).into_iter().map(timed).collect()
    }

    fn forget(&mut self) {
        self.parts.clear();
        self.fronts.clear();
    }

    fn key(&self, chunk: &ChunkQuery<'_>, part: Part, work: Workload) -> PartKey {
        let runs =
            if part == Part::Last { chunk.runs_backward } else { chunk.layers_run_backward() };
        let gradients = ComputedGradients { inputs: runs, weights: runs && chunk.trainable };
        PartKey { module: chunk.module, part, work, gradients }
    }

    fn part(&self, key: PartKey) -> PartCost {
        self.parts.get(key, || self.simulate(key))
    }

    fn dag(&self, module: ModuleId, part: Part, work: Workload) -> Dag {
        let layout = self.layout;
        self.table.operators(&PartQuery { model: &self.model, module, part, work, layout })
    }

    fn simulate(&self, key: PartKey) -> PartCost {
        let dag = self.dag(key.module, key.part, key.work);
        let hidden = u64::from(self.model.modules[key.module.index()].hidden);
        let input = stream_bytes(key.work.tokens, hidden, self.layout);
        PartCost::of(&dag, &self.machine, input, key.gradients)
    }

    /// The sums over the parts of a stage, with one strategy for each layer.
    fn stage_of(
        &self,
        chunk: &ChunkQuery<'_>,
        work: Workload,
        layers: &[LayerStrategy],
    ) -> StageTotals {
        let mut totals = StageTotals::default();
        // The layers of a frozen tower keep nothing for the backward of its adapter.
        let is_frozen = chunk.runs_backward && !chunk.layers_run_backward();
        let mut add = |part, strategy| {
            let part = self.part(self.key(chunk, part, work));
            if is_frozen { totals.add_forward(&part) } else { totals.add(&part, strategy) }
        };
        if chunk.is_first() {
            add(Part::First, LayerStrategy::Keep);
        }
        for (part, &strategy) in chunk.layer_parts().zip(layers) {
            add(part, strategy);
        }
        for _ in 0..chunk.stacked_layers() + usize::from(chunk.is_last()) {
            totals.add(&self.part(self.key(chunk, Part::Last, work)), LayerStrategy::Keep);
        }
        totals
    }

    fn cost(&self, chunk: &ChunkQuery<'_>, work: Workload, layers: &[LayerStrategy]) -> StageCost {
        let totals = self.stage_of(chunk, work, layers);
        let runs = chunk.runs_backward;
        StageCost {
            strategy: Strategy::of_layers(layers),
            forward: totals.usage.forward,
            backward: if runs {
                totals.usage.input_gradient + totals.weight_gradient
            } else {
                Seconds::ZERO
            },
            weight: (runs && chunk.trainable).then_some(totals.weight_gradient),
            activation_bytes: if runs { totals.usage.bytes } else { totals.working },
            output_bytes: self.output_bytes(chunk, work),
        }
    }

    /// The bytes that a device sends to the next chunk: its share of the residual stream, or of the output of the module.
    fn output_bytes(&self, chunk: &ChunkQuery<'_>, work: Workload) -> Bytes {
        let spec = &self.model.modules[chunk.module.index()];
        let width = self.model.passed_width(chunk.module, chunk.layers.end);
        let (tokens, width) = if !chunk.is_last() {
            (work.tokens, width)
        } else if spec.kind.modality().has_loss()
            && self.model.consumers_of(chunk.module).is_empty()
        {
            (0, 0)
        } else {
            (work.output_tokens, width)
        };
        stream_bytes(tokens, width, self.layout)
    }

    /// Refuses chunks of other models: their shapes are unknown here.
    fn check(&self, chunk: &ChunkQuery<'_>) -> Result<(), CostError> {
        let known = chunk.model.modules == self.model.modules;
        let layers = self.model.modules.get(chunk.module.index()).map_or(0, |m| m.layers);
        let range = &chunk.layers;
        if known && range.start <= range.end && range.end <= layers {
            return Ok(());
        }
        let name = chunk.model.modules.get(chunk.module.index()).map(|m| m.name.clone());
        Err(CostError::Unknown {
            module: name.unwrap_or_else(|| format!("#{}", chunk.module)),
            what: format!("layers {}..{} of model {:?}", range.start, range.end, chunk.model.name),
            remedy: format!(
                "build a cost model for that model; this one is for {:?}, whose module has {layers} layers",
                self.model.name
            ),
        })
    }

    fn candidates_of(&self, chunk: &ChunkQuery<'_>, work: Workload) -> Vec<StageCost> {
        let keep = [LayerStrategy::Keep];
        let offered = match self.strategies.as_slice() {
            _ if !chunk.layers_run_backward() => &keep,
            [] => &keep,
            strategies => strategies,
        };
        let choices = |part: Part| -> Vec<Choice> {
            let part = self.part(self.key(chunk, part, work));
            let under = |&strategy: &LayerStrategy| {
                let usage = part.under(strategy);
                let seconds = usage.forward + usage.input_gradient + part.weight_gradient;
                Choice { strategy, seconds, bytes: usage.bytes }
            };
            offered.iter().map(under).collect()
        };
        let parts: Vec<Part> = chunk.layer_parts().collect();
        let choices: Vec<_> = parts.iter().map(|&part| choices(part)).collect();
        let are_equal = parts.windows(2).all(|pair| pair[0] == pair[1]);
        let selections = front(&choices, CANDIDATES);
        selections
            .into_iter()
            .map(|mut selection| {
                // The order of equal layers does not matter. Sorted strategies have a short name.
                if are_equal {
                    selection.layers.sort_unstable_by(|a, b| b.cmp(a));
                }
                self.cost(chunk, work, &selection.layers)
            })
            .collect()
    }
}

impl CostModel for AnalyticCost {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        let chunk = &query.chunk;
        self.check(chunk)?;
        let Some(layers) = query.strategy.layers(chunk.layers.len()) else {
            return Err(CostError::Unknown {
                module: self.model.modules[chunk.module.index()].name.clone(),
                what: format!("strategy {:?} for {} layers", query.strategy, chunk.layers.len()),
                remedy: "use keep, selective, full or offload for all layers, or one for each run \
                         of layers, such as `full*2+keep*6`"
                    .into(),
            });
        };
        let mut cost = self.cost(chunk, query.workload, &layers);
        cost.strategy = query.strategy.clone();
        Ok(cost)
    }

    /// Pipeline ranks are the outermost dimension: rank `r` starts at device `r * tensor * data`.
    fn transfer(&self, from: RankId, to: RankId, bytes: Bytes) -> Seconds {
        if from == to {
            return Seconds::ZERO;
        }
        let parallel = self.model.parallel;
        let devices = u64::from(parallel.tensor) * u64::from(parallel.data);
        let per_node = u64::from(self.machine.cluster().devices_per_node.max(1));
        let node = |rank: RankId| u64::from(rank.0) * devices / per_node;
        self.machine.transfer(node(from) == node(to), bytes)
    }

    /// Mixed precision with Adam: the weight, a gradient in single precision, and one replica's share of the master weight and
    /// two moments (ZeRO-1), or all of them ([`Replicas::sharded`]). Weights in single precision need no master copy. Frozen weights have
    /// nothing else.
    fn static_bytes(&self, chunk: &ChunkQuery<'_>) -> Bytes {
        let weight = u64::from(self.layout.element_bytes);
        let tensor = u64::from(self.layout.tensor);
        let weights = chunk.parameters().div_ceil(tensor).saturating_mul(weight);
        let trained = chunk.trained_parameters().div_ceil(tensor);
        let share = trained.saturating_mul(self.state_bytes()).div_ceil(self.shards());
        Bytes(weights.saturating_add(trained.saturating_mul(GRADIENT_BYTES)).saturating_add(share))
    }

    /// The tensors of the running part: the peak of its forward, and the activations that a recomputed or offloaded
    /// layer restores for its backward.
    fn working_bytes(&self, chunk: &ChunkQuery<'_>, workload: Workload) -> Bytes {
        if !chunk.runs_backward || self.check(chunk).is_err() {
            return Bytes::ZERO;
        }
        let part = |part| self.part(self.key(chunk, part, workload));
        let layers = chunk.layer_parts().map(part);
        let mut peak = layers.map(|layer| layer.working + layer.saved).max().unwrap_or_default();
        if chunk.is_first() {
            peak = peak.max(part(Part::First).working);
        }
        if chunk.is_last() || chunk.stacked_layers() > 0 {
            peak = peak.max(part(Part::Last).working);
        }
        peak
    }

    /// The optimiser step, bound by memory.
    fn update(&self, chunk: &ChunkQuery<'_>) -> Seconds {
        self.update_of(chunk)
    }

    fn candidates(
        &self,
        chunk: &ChunkQuery<'_>,
        workload: Workload,
    ) -> Result<Vec<StageCost>, CostError> {
        self.check(chunk)?;
        let key = FrontKey {
            layer: self.key(chunk, Part::Layer, workload),
            layers: chunk.layers.len() as u32,
            windowed: chunk
                .layer_parts()
                .enumerate()
                .filter(|(_, part)| *part == Part::Windowed)
                .map(|(i, _)| i as u32)
                .collect(),
            stacked: chunk.stacked_layers(),
            output_width: self.model.passed_width(chunk.module, chunk.layers.end),
            first: chunk.is_first(),
            last: chunk.is_last(),
        };
        let make = || Arc::new(self.candidates_of(chunk, workload));
        Ok(self.fronts.get(key, make).to_vec())
    }
}
