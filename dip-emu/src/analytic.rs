//! The analytic cost model: stages from operators, operators from the data sheet and fitted factors (paper section 3).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use dip_core::profile::Part;
use dip_core::{
    Bytes, ChunkQuery, ClusterSpec, CostError, CostModel, Flops, LayerStrategy, ModelSpec,
    ModuleId, ModuleKind, RankId, Seconds, StageCost, StageQuery, Strategy, Workload,
};

use crate::layer::{Layout, operators, stream_bytes};
use crate::ops::{Machine, Operator, OperatorKind, OperatorRule, Pass};
use crate::strategy::{CANDIDATES, Choice, front};

/// Most entries of a reuse table. Batches of videos hardly ever repeat, so a long run would fill the memory otherwise.
const MAX_REUSED: usize = 1 << 16;

/// Seconds and bytes of stages from the operators of their layers.
///
/// A stage has the latencies of its parts one after the other; its backward is the gradient of the inputs and then that of
/// the weights, which can run later ([`StageCost::weight`]). Equal parts are simulated once: across layers and ranks, and
/// across microbatches and iterations. Not counted: the working set of the layer that is computed, the gradient exchange of
/// data parallelism at the end of an iteration, and copies to the host that compete for one link.
pub struct AnalyticCost {
    model: ModelSpec,
    machine: Machine,
    layout: Layout,
    strategies: Vec<LayerStrategy>,
    reuse: bool,
    parts: Mutex<HashMap<PartKey, PartCost>>,
    fronts: Mutex<HashMap<FrontKey, Arc<Vec<StageCost>>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PartKey {
    module: ModuleId,
    part: Part,
    work: Workload,
    trainable: bool,
    backward: bool,
}

/// Chunks with the same number of layers and the same ends cost the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FrontKey {
    layer: PartKey,
    layers: u32,
    first: bool,
    last: bool,
}

/// Seconds and bytes of one part.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct PartCost {
    forward: Seconds,
    input_gradient: Seconds,
    weight_gradient: Seconds,
    attention: Seconds,
    saved: Bytes,
    saved_selective: Bytes,
    /// Most that lives at once in a forward that keeps nothing.
    working: Bytes,
    /// The residual stream at its start.
    input: Bytes,
    /// Seconds to copy what is saved to the host, or back.
    copy: Seconds,
}

/// Seconds and bytes of one part under a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Stay {
    forward: Seconds,
    input_gradient: Seconds,
    bytes: Bytes,
}

impl AnalyticCost {
    /// The cost of `model`, spread as its `parallel` section says, on devices of `cluster`.
    pub fn new(model: &ModelSpec, cluster: &ClusterSpec) -> Self {
        Self {
            model: model.clone(),
            machine: Machine::new(model, cluster),
            layout: Layout {
                tensor: model.parallel.tensor,
                element_bytes: cluster.device.element_bytes,
            },
            strategies: LayerStrategy::ALL.to_vec(),
            reuse: true,
            parts: Mutex::default(),
            fronts: Mutex::default(),
        }
    }

    /// Sets a rule that goes before the formula of operators.
    pub fn with_rule(mut self, rule: impl OperatorRule + 'static) -> Self {
        self.machine = self.machine.with_rule(Arc::new(rule));
        self.forget();
        self
    }

    /// Offers only these strategies as candidates, such as those that the trainer knows. Without one, `keep` is offered.
    pub fn with_strategies(mut self, strategies: &[LayerStrategy]) -> Self {
        self.strategies = strategies.to_vec();
        self.forget();
        self
    }

    /// Whether equal parts are simulated once (they are without this call). The costs are the same either way.
    pub fn with_reuse(mut self, reuse: bool) -> Self {
        self.reuse = reuse;
        self.forget();
        self
    }

    /// The operators of one part of a module in one pass, with what each of them takes.
    pub fn operators(
        &self,
        module: ModuleId,
        part: Part,
        work: Workload,
        pass: Pass,
    ) -> Vec<(Operator, Seconds)> {
        let dag = operators(&self.model, module, part, &work, self.layout);
        let timed = |op| (op, self.machine.latency(&op));
        dag.operators(pass).into_iter().map(timed).collect()
    }

    fn forget(&mut self) {
        self.parts = Mutex::default();
        self.fronts = Mutex::default();
    }

    fn key(&self, chunk: &ChunkQuery<'_>, part: Part, work: Workload) -> PartKey {
        PartKey {
            module: chunk.module,
            part,
            work,
            trainable: chunk.trainable,
            backward: chunk.runs_backward,
        }
    }

    fn part(&self, key: PartKey) -> PartCost {
        reused(self.reuse, &self.parts, key, || self.simulate(key))
    }

    fn simulate(&self, key: PartKey) -> PartCost {
        let dag = operators(&self.model, key.module, key.part, &key.work, self.layout);
        let hidden = u64::from(self.model.modules[key.module.index()].hidden);
        let run = |pass, runs| if runs { dag.latency(pass, &self.machine) } else { Seconds::ZERO };
        let saved = dag.saved(key.trainable, false);
        PartCost {
            forward: run(Pass::Forward, true),
            input_gradient: run(Pass::InputGradient, key.backward),
            weight_gradient: run(Pass::WeightGradient, key.backward && key.trainable),
            attention: dag.attention_latency(&self.machine),
            saved,
            saved_selective: dag.saved(key.trainable, true),
            working: dag.peak(),
            input: stream_bytes(key.work.tokens, hidden, self.layout),
            copy: self.machine.latency(&host_copy(saved)),
        }
    }

    /// The stage under one strategy a layer.
    fn stage_of(&self, chunk: &ChunkQuery<'_>, work: Workload, layers: &[LayerStrategy]) -> Totals {
        let mut totals = Totals::default();
        if chunk.is_first() {
            totals.add(&self.part(self.key(chunk, Part::First, work)), LayerStrategy::Keep);
        }
        for &strategy in layers {
            totals.add(&self.part(self.key(chunk, Part::Layer, work)), strategy);
        }
        if chunk.is_last() {
            totals.add(&self.part(self.key(chunk, Part::Last, work)), LayerStrategy::Keep);
        }
        totals
    }

    fn cost(&self, chunk: &ChunkQuery<'_>, work: Workload, layers: &[LayerStrategy]) -> StageCost {
        let totals = self.stage_of(chunk, work, layers);
        let runs = chunk.runs_backward;
        StageCost {
            strategy: Strategy::of_layers(layers),
            forward: totals.stay.forward,
            backward: if runs {
                totals.stay.input_gradient + totals.weight_gradient
            } else {
                Seconds::ZERO
            },
            weight: (runs && chunk.trainable).then_some(totals.weight_gradient),
            activation_bytes: if runs { totals.stay.bytes } else { totals.working },
            output_bytes: self.output_bytes(chunk, work),
        }
    }

    /// What a device sends on: its share of the residual stream, or of what the end of the module makes.
    fn output_bytes(&self, chunk: &ChunkQuery<'_>, work: Workload) -> Bytes {
        let spec = &self.model.modules[chunk.module.index()];
        let ends = chunk.is_last();
        let (tokens, width) = match spec.kind {
            ModuleKind::Decoder { head: true, .. } if ends && !self.feeds_others(chunk.module) => {
                (0, 0)
            }
            ModuleKind::Dit { .. } if ends && !self.feeds_others(chunk.module) => (0, 0),
            _ if ends => (work.output_tokens, self.model.output_width(chunk.module)),
            _ => (work.tokens, u64::from(spec.hidden)),
        };
        stream_bytes(tokens, width, self.layout)
    }

    fn feeds_others(&self, module: ModuleId) -> bool {
        !self.model.consumers_of(module).is_empty()
    }

    /// A chunk of another model would be priced with the shapes of this one.
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
                "make the cost model for it; this one is for {:?} with {layers} layers here",
                self.model.name
            ),
        })
    }

    fn candidates_of(&self, chunk: &ChunkQuery<'_>, work: Workload) -> Vec<StageCost> {
        let n = chunk.layers.len();
        let keep = [LayerStrategy::Keep];
        let offered = match self.strategies.as_slice() {
            _ if !chunk.runs_backward => &keep,
            [] => &keep,
            strategies => strategies,
        };
        let part = self.part(self.key(chunk, Part::Layer, work));
        let choices: Vec<Choice> = offered
            .iter()
            .map(|&strategy| {
                let stay = part.under(strategy);
                let seconds = stay.forward + stay.input_gradient + part.weight_gradient;
                Choice { strategy, seconds, bytes: stay.bytes }
            })
            .collect();
        let selections = front(&vec![choices; n], CANDIDATES);
        selections
            .into_iter()
            .map(|mut selection| {
                // Equal layers may be exchanged: in order, the name is short.
                selection.layers.sort_unstable_by(|a, b| b.cmp(a));
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
                remedy: "name one of keep, selective, full and offload, or one for each run of \
                         layers, as `full*2+keep*6`"
                    .into(),
            });
        };
        let mut cost = self.cost(chunk, query.workload, &layers);
        cost.strategy = query.strategy.clone();
        Ok(cost)
    }

    /// Ranks are the outermost dimension: rank `r` starts at device `r * tensor * data`.
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

    /// Mixed precision with Adam and ZeRO-1: a weight, a gradient in single precision, and the share of a replica of the
    /// single-precision weight and two moments. In single precision the weight is its own master. Frozen: the weight.
    fn static_bytes(&self, chunk: &ChunkQuery<'_>) -> Bytes {
        let weight = u64::from(self.layout.element_bytes);
        let parameters = crate::chunk_parameters(chunk).div_ceil(u64::from(self.layout.tensor));
        if !chunk.trainable {
            return Bytes(parameters.saturating_mul(weight));
        }
        let state = if weight < 4 { 12 } else { 8 };
        let replicas = u64::from(self.model.parallel.data);
        let share = parameters.saturating_mul(state).div_ceil(replicas);
        Bytes(parameters.saturating_mul(weight + 4).saturating_add(share))
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
            first: chunk.is_first(),
            last: chunk.is_last(),
        };
        let make = || Arc::new(self.candidates_of(chunk, workload));
        Ok(reused(self.reuse, &self.fronts, key, make).to_vec())
    }
}

/// The value of `key`, made once. Two threads may make it twice, with the same result.
fn reused<K: Eq + Hash, V: Clone>(
    reuse: bool,
    table: &Mutex<HashMap<K, V>>,
    key: K,
    make: impl FnOnce() -> V,
) -> V {
    if !reuse {
        return make();
    }
    // A panic elsewhere leaves whole entries behind.
    let lock = || table.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(value) = lock().get(&key) {
        return value.clone();
    }
    let value = make();
    let mut table = lock();
    if table.len() >= MAX_REUSED {
        table.clear();
    }
    table.insert(key, value.clone());
    value
}

fn host_copy(bytes: Bytes) -> Operator {
    Operator {
        name: "offload",
        kind: OperatorKind::HostCopy,
        pass: Pass::Forward,
        flops: Flops(0.0),
        memory: bytes,
        network: bytes,
    }
}

impl PartCost {
    /// What the part takes under a strategy, without its weight gradient, which is the same under all.
    fn under(&self, strategy: LayerStrategy) -> Stay {
        let keep =
            Stay { forward: self.forward, input_gradient: self.input_gradient, bytes: self.saved };
        match strategy {
            LayerStrategy::Keep => keep,
            LayerStrategy::Selective => Stay {
                input_gradient: self.input_gradient + self.attention,
                bytes: self.saved_selective,
                ..keep
            },
            LayerStrategy::Full => Stay {
                input_gradient: self.input_gradient + self.forward,
                bytes: self.input,
                ..keep
            },
            // Copies overlap with computation, so only what is longer than it counts.
            LayerStrategy::Offload => Stay {
                forward: self.forward.max(self.copy),
                input_gradient: self
                    .input_gradient
                    .max(Seconds(self.copy.0 - self.weight_gradient.0)),
                bytes: Bytes::ZERO,
            },
        }
    }
}

/// Sums over the parts of a stage.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    stay: Stay,
    weight_gradient: Seconds,
    working: Bytes,
}

impl Totals {
    fn add(&mut self, part: &PartCost, strategy: LayerStrategy) {
        let stay = part.under(strategy);
        self.stay.forward += stay.forward;
        self.stay.input_gradient += stay.input_gradient;
        self.stay.bytes += stay.bytes;
        self.weight_gradient += part.weight_gradient;
        self.working = self.working.max(part.working);
    }
}
