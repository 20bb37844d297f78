//! The cost of a stage, and the strategies that trade its memory for time.

mod operator;
pub mod profile;

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::spec::{Bytes, ModelSpec, ModuleId, RankId, Seconds, Workload};

use profile::Part;

pub use operator::{OperatorProfile, OperatorShape, OperatorTime};

/// The memory strategy of one layer: what happens to its activations between forward and backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LayerStrategy {
    /// Keeps all activations.
    Keep,
    /// Recomputes the attention core in the backward.
    Selective,
    /// Keeps only the input and recomputes the whole layer.
    Full,
    /// Keeps all activations in host memory.
    Offload,
}

impl LayerStrategy {
    /// Every strategy.
    pub const ALL: [Self; 4] = [Self::Keep, Self::Selective, Self::Full, Self::Offload];

    /// Its name in plans.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Selective => "selective",
            Self::Full => "full",
            Self::Offload => "offload",
        }
    }
}

/// The memory strategy of a stage: one strategy for all layers, such as `keep`, or one per run of layers, such as
/// `full*2+keep*6`.
///
/// Graphs of other programs may use their own names. Only [`Strategy::layers`] interprets the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Strategy(String);

impl Strategy {
    /// A strategy with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The strategy in which every layer keeps all activations.
    pub fn keep() -> Self {
        Self::new("keep")
    }

    /// The strategy with `layers[i]` for layer `i`.
    pub fn of_layers(layers: &[LayerStrategy]) -> Self {
        let runs: Vec<_> = layers.chunk_by(|a, b| a == b).collect();
        match runs.as_slice() {
            [] => Self::keep(),
            [run] => Self::new(run[0].name()),
            runs => {
                let text: Vec<_> =
                    runs.iter().map(|run| format!("{}*{}", run[0].name(), run.len())).collect();
                Self(text.join("+"))
            }
        }
    }

    /// The strategy of each of `n` layers, or `None` if the text names other strategies or another number of layers.
    pub fn layers(&self, n: usize) -> Option<Vec<LayerStrategy>> {
        let by_name = |name: &str| LayerStrategy::ALL.into_iter().find(|s| s.name() == name);
        if let Some(strategy) = by_name(&self.0) {
            return Some(vec![strategy; n]);
        }
        let mut layers = Vec::new();
        for run in self.0.split('+') {
            let (name, count) = run.split_once('*')?;
            let count: usize = count.parse().ok().filter(|&c| c <= n - layers.len())?;
            layers.extend(std::iter::repeat_n(by_name(name)?, count));
        }
        (layers.len() == n).then_some(layers)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Self::keep()
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A chunk of a module as the cost model sees it.
#[derive(Debug, Clone)]
pub struct ChunkQuery<'a> {
    /// The whole model.
    pub model: &'a ModelSpec,
    /// The module of the chunk.
    pub module: ModuleId,
    /// Its layers. The chunk with layer 0 also has the start of the module (embedding), the chunk with the last layer its end
    /// (adapter, or head and loss).
    pub layers: Range<u32>,
    /// True if the weights are trained.
    pub trainable: bool,
    /// True if the chunk runs a backward.
    pub runs_backward: bool,
}

/// One stage pair of a chunk: a sub-microbatch under a memory strategy.
#[derive(Debug, Clone)]
pub struct StageQuery<'a> {
    /// The chunk.
    pub chunk: ChunkQuery<'a>,
    /// The sub-microbatch.
    pub workload: Workload,
    /// The strategy.
    pub strategy: &'a Strategy,
}

/// Seconds and bytes of one stage pair.
#[derive(Debug, Clone, PartialEq)]
pub struct StageCost {
    /// The strategy of the pair.
    pub strategy: Strategy,
    /// Duration of the forward.
    pub forward: Seconds,
    /// Duration of the whole backward: input and weight gradients, and recomputation. Zero if no backward runs.
    pub backward: Seconds,
    /// The part of `backward` that can run later as a weight task; `None` if the stage cannot split its backward.
    pub weight: Option<Seconds>,
    /// Bytes held from the start of the forward to the end of the backward.
    pub activation_bytes: Bytes,
    /// Bytes that the forward sends to the next chunk. The backward sends as many in the other direction.
    pub output_bytes: Bytes,
}

impl<'a> ChunkQuery<'a> {
    /// A query for `layers` of a module, as the model trains them.
    ///
    /// # Panics
    /// If the model has no such module.
    pub fn new(model: &'a ModelSpec, module: ModuleId, layers: Range<u32>) -> Self {
        let trainable = model.modules[module.index()].trainable;
        let runs_backward = model.runs_backward()[module.index()];
        Self { model, module, layers, trainable, runs_backward }
    }

    /// True if the chunk has the first layer of its module.
    pub fn is_first(&self) -> bool {
        self.layers.start == 0
    }

    /// True if the chunk has the last layer of its module.
    pub fn is_last(&self) -> bool {
        self.layers.end == self.model.modules[self.module.index()].layers
    }

    /// True if its layers run a backward. In a frozen tower only the adapter does; the backwards of other chunks are empty.
    pub fn layers_run_backward(&self) -> bool {
        self.runs_backward && !self.model.modules[self.module.index()].has_frozen_tower()
    }

    /// What each of its layers is measured as: [`Part::Layer`] or [`Part::Windowed`].
    pub fn layer_parts(&self) -> impl Iterator<Item = Part> + '_ {
        let modality = self.model.modules[self.module.index()].kind.modality();
        let part = |layer| if modality.is_windowed(layer) { Part::Windowed } else { Part::Layer };
        self.layers.clone().map(part)
    }

    /// Number of weights of the chunk: its layers, their adapters, and the start or end of its module if it has them.
    pub fn parameters(&self) -> u64 {
        let parts = self.model.parameters(self.module);
        let first = if self.is_first() { parts.first } else { 0 };
        let last = if self.is_last() { parts.last } else { 0 };
        let stacked = self.stacked_layers() as u64 * parts.stacked;
        parts.layer * self.layers.len() as u64 + first + last + stacked
    }

    /// Number of weights of the chunk that are trained: all, those of its trained parts, or those of its adapters.
    pub fn trained_parameters(&self) -> u64 {
        match self.trainable {
            true => self.model.trained_parameters(self.module, self.layers.clone()),
            false => 0,
        }
    }

    /// Number of its layers whose outputs an adapter of their own merges.
    pub fn stacked_layers(&self) -> usize {
        let stacked = self.model.modules[self.module.index()].kind.modality().stacked_layers();
        stacked.iter().filter(|layer| self.layers.contains(layer)).count()
    }
}

/// A cost that is unknown.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum CostError {
    /// The cost model has no figure for a stage.
    #[error("no cost for module {module:?}, {what}; {remedy}")]
    Unknown {
        /// The module.
        module: String,
        /// The unknown part.
        what: String,
        /// What to do.
        remedy: String,
    },
}

/// Gives seconds and bytes of a stage: a chunk, a sub-microbatch and a memory strategy.
///
/// dip-emu implements it from operator costs (analytic, calibrated) and from measured profiles.
pub trait CostModel: Send + Sync {
    /// The cost of one stage pair.
    ///
    /// # Errors
    /// [`CostError`] if the module, its shape or the strategy is unknown.
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError>;

    /// Seconds to move `bytes` from one pipeline rank to another; zero on the same rank.
    fn transfer(&self, from: RankId, to: RankId, bytes: Bytes) -> Seconds;

    /// Bytes of weights, gradients and optimiser state of a chunk.
    fn static_bytes(&self, chunk: &ChunkQuery<'_>) -> Bytes;

    /// Peak temporary bytes while a stage of the chunk computes, besides the activations it holds. A rank needs the largest
    /// working set of its stages once; the task graph adds it to [`static_bytes`](crate::TaskGraph::static_bytes). The default
    /// is zero.
    fn working_bytes(&self, chunk: &ChunkQuery<'_>, workload: Workload) -> Bytes {
        let _ = (chunk, workload);
        Bytes::ZERO
    }

    /// Duration of the optimiser step on the weights of a chunk, without communication between replicas. It runs once per
    /// iteration after all gradients are ready, outside the plan. The default is zero.
    fn update(&self, chunk: &ChunkQuery<'_>) -> Seconds {
        let _ = chunk;
        Seconds::ZERO
    }

    /// Candidate strategies of a stage pair on the time-memory front, fastest first (paper section 2: at most S = 10). The
    /// default offers only `keep`.
    ///
    /// # Errors
    /// Same as [`CostModel::stage`].
    fn candidates(
        &self,
        chunk: &ChunkQuery<'_>,
        workload: Workload,
    ) -> Result<Vec<StageCost>, CostError> {
        let keep = Strategy::keep();
        Ok(vec![self.stage(&StageQuery { chunk: chunk.clone(), workload, strategy: &keep })?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_survives_its_text_form() {
        use LayerStrategy::{Full, Keep, Offload};
        for layers in [vec![Keep; 4], vec![Full, Full, Keep], vec![Offload], vec![Keep, Full, Keep]]
        {
            let text = Strategy::of_layers(&layers);
            assert_eq!(text.layers(layers.len()).as_deref(), Some(&layers[..]), "{text}");
        }
        assert_eq!(Strategy::of_layers(&[Full, Full, Keep]).as_str(), "full*2+keep*1");
        for bad in ["", "keep*", "keep*2", "half", "full*9+keep*1", "full*2+keep*2"] {
            assert_eq!(Strategy::new(bad).layers(3), None, "{bad:?}");
        }
    }
}
