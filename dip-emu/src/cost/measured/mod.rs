//! The measured cost model: stages from a profile of the trainer.

mod points;

use std::collections::BTreeMap;
use std::sync::Arc;

use dip_core::profile::{KeptCounts, Part, Profile, ProfileEntry};
use dip_core::{
    Bytes, ChunkQuery, CostError, CostModel, LayerStrategy, RankId, Seconds, StageCost, StageQuery,
    Strategy, Workload, causal_block_pairs,
};

use self::points::{MeasuredPart, PairCost};

/// Bytes of a parameter. It is in single precision, even if layers compute in a lower one.
const BYTES_PER_PARAMETER: u64 = 4;
/// Bytes of the gradient and the two moments of a trained parameter.
const STATE_BYTES_PER_PARAMETER: u64 = 12;
/// Bytes of the moving average of a parameter, in runs that keep one.
const AVERAGE_BYTES_PER_PARAMETER: u64 = 4;

/// Latency and bytes per second of a link; `None` if it was not measured.
type MeasuredLink = Option<(Seconds, f64)>;

/// Seconds and bytes of stages, interpolated between the sizes that the trainer measured.
///
/// Stages keep all activations unless other strategies are offered by [`with_recompute`](Self::with_recompute) and
/// [`with_offload`](Self::with_offload).
#[derive(Debug, Clone)]
pub struct MeasuredCost {
    /// The measured sizes of each part of each module, ascending.
    points: BTreeMap<(String, Part), Vec<ProfileEntry>>,
    link_latency: Seconds,
    link_bytes_per_s: f64,
    /// By the ranks that send and receive: latency and bytes per second of links that were measured.
    links: Arc<[Vec<MeasuredLink>]>,
    element_bytes: u64,
    recompute: bool,
    offload: bool,
    weight_split: bool,
    averages: bool,
    update_share: f64,
}

impl MeasuredCost {
    /// The costs of `profile`.
    pub fn new(profile: &Profile) -> Self {
        let mut points: BTreeMap<(String, Part), Vec<ProfileEntry>> = BTreeMap::new();
        for entry in &profile.entries {
            points.entry((entry.module.clone(), entry.part)).or_default().push(entry.clone());
        }
        for entries in points.values_mut() {
            entries.sort_by_key(|e| e.tokens);
            entries.dedup_by_key(|e| e.tokens);
        }
        Self {
            points,
            link_latency: profile.link_latency_s,
            link_bytes_per_s: profile.link_bytes_per_s,
            links: Arc::default(),
            element_bytes: u64::from(profile.element_bytes),
            recompute: false,
            offload: false,
            weight_split: false,
            averages: false,
            update_share: 1.0,
        }
    }

    /// Prices transfers between ranks by `links[from][to]`, latency and bytes per second, where it is known. Other transfers cost what
    /// the profile says.
    #[must_use]
    pub fn with_links(mut self, links: Vec<Vec<MeasuredLink>>) -> Self {
        self.links = links.into();
        self
    }

    /// Offers candidates that recompute attention cores or whole layers.
    #[must_use]
    pub fn with_recompute(mut self, recompute: bool) -> Self {
        self.recompute = recompute;
        self
    }

    /// Offers a candidate that keeps activations in host memory. Useless on devices that share their memory with the host.
    #[must_use]
    pub fn with_offload(mut self, offload: bool) -> Self {
        self.offload = offload;
        self
    }

    /// Counts the memory of moving averages of the trained weights.
    #[must_use]
    pub fn with_averages(mut self, averages: bool) -> Self {
        self.averages = averages;
        self
    }

    /// Makes each replica update only this share of the weights (ZeRO-1). The exchange of updated weights is not counted.
    #[must_use]
    pub fn with_update_share(mut self, share: f64) -> Self {
        self.update_share = share;
        self
    }

    /// Prices stages for task graphs with split weight gradients (W). The two tasks of a split backward take longer than a
    /// joint backward.
    #[must_use]
    pub fn with_weight_split(mut self, weight_split: bool) -> Self {
        self.weight_split = weight_split;
        self
    }

    fn points(&self, module: &str, part: Part) -> &[ProfileEntry] {
        self.points.get(&(module.to_owned(), part)).map_or(&[], Vec::as_slice)
    }

    /// The optimiser's time for a part. It does not depend on the measured size, so this is the mean over all sizes.
    fn mean_update(&self, module: &str, part: Part) -> Seconds {
        let points = self.points(module, part);
        let sum: Seconds = points.iter().map(|point| point.times.update_s).sum();
        sum / points.len().max(1) as f64
    }

    /// The cost of a chunk without its layers, and the cost of each layer.
    fn chunk(
        &self,
        query: &StageQuery<'_>,
    ) -> Result<(MeasuredPart, Vec<MeasuredPart>), CostError> {
        let chunk = &query.chunk;
        let module = &chunk.model.modules[chunk.module.index()].name;
        let tokens = query.workload.tokens;
        let unknown = |part: Part| CostError::Unknown {
            module: module.clone(),
            what: format!("part {part:?} at {tokens} tokens"),
            remedy: "measure the profile again".into(),
        };
        let part = |part| {
            MeasuredPart::of_work(self.points(module, part), &query.workload)
                .ok_or_else(|| unknown(part))
        };
        let mut ends = part(Part::Stage)?;
        let runs = chunk.layers_run_backward() || !chunk.runs_backward;
        if chunk.is_first() {
            let first = part(Part::First)?;
            ends = ends.plus(if runs { first } else { first.forward_only() }, 1.0);
        }
        let adapters = chunk.stacked_layers() + usize::from(chunk.is_last());
        if adapters > 0 {
            ends = ends.plus(part(Part::Last)?, adapters as f64);
        }
        let pairs = query.workload.windowed_pairs;
        let layer = |kind| match kind {
            Part::Windowed => Ok(part(kind)?.at_pairs(pairs)),
            _ => part(kind),
        };
        let layer = |kind| Ok(if runs { layer(kind)? } else { layer(kind)?.forward_only() });
        Ok((ends, chunk.layer_parts().map(layer).collect::<Result<_, _>>()?))
    }
}

impl CostModel for MeasuredCost {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        let (ends, parts) = self.chunk(query)?;
        let chunk = &query.chunk;
        let spec = &chunk.model.modules[chunk.module.index()];
        let layers = query.strategy.layers(chunk.layers.len()).ok_or_else(|| {
            let names = LayerStrategy::ALL.map(|s| format!("`{}`", s.name())).join(", ");
            CostError::Unknown {
                module: spec.name.clone(),
                what: format!("strategy {}", query.strategy),
                remedy: format!("use one of {names}"),
            }
        })?;
        let all = equal_runs(&parts).fold(ends, |sum, (layer, n)| sum.plus(layer, n)).times;
        let ends_cost = ends.under(LayerStrategy::Keep);
        let PairCost { forward, backward, kept } = (parts.iter().zip(&layers))
            .fold(ends_cost, |sum, (layer, &strategy)| sum.plus(layer.under(strategy)));
        let has_weight_gradients = chunk.trainable && chunk.runs_backward;
        let split_overhead = if has_weight_gradients && self.weight_split {
            (all.input_gradient_s + all.weight_s - all.backward_s).max(Seconds::ZERO)
        } else {
            Seconds::ZERO
        };
        let (forward, backward, activation) = match chunk.runs_backward {
            true => {
                let kept = kept.of(kept_of(query));
                (forward, backward + split_overhead, kept)
            }
            false => (all.inference_s, Seconds::ZERO, Bytes::ZERO),
        };
        let weight = has_weight_gradients.then_some(all.weight_s.min(backward));
        Ok(StageCost {
            strategy: query.strategy.clone(),
            forward,
            backward,
            weight,
            activation_bytes: activation,
            output_bytes: Bytes(self.element_bytes * output_values(query)),
        })
    }

    fn transfer(&self, from: RankId, to: RankId, bytes: Bytes) -> Seconds {
        if from == to {
            return Seconds::ZERO;
        }
        let known = self.links.get(from.index()).and_then(|links| *links.get(to.index())?);
        let (latency, bytes_per_s) = known.unwrap_or((self.link_latency, self.link_bytes_per_s));
        latency + Seconds(bytes.0 as f64 / bytes_per_s)
    }

    fn static_bytes(&self, chunk: &ChunkQuery<'_>) -> Bytes {
        let average = if self.averages { AVERAGE_BYTES_PER_PARAMETER } else { 0 };
        let state = STATE_BYTES_PER_PARAMETER + average;
        // Layers in lower precision compute with a copy of the weights.
        let copy = if self.element_bytes < 4 { self.element_bytes } else { 0 };
        let weights = chunk.parameters().saturating_mul(BYTES_PER_PARAMETER + copy);
        Bytes(weights.saturating_add(chunk.trained_parameters().saturating_mul(state)))
    }

    fn update(&self, chunk: &ChunkQuery<'_>) -> Seconds {
        if !chunk.trainable {
            return Seconds::ZERO;
        }
        let module = &chunk.model.modules[chunk.module.index()].name;
        let part = |part| self.mean_update(module, part);
        let is_frozen = chunk.model.modules[chunk.module.index()].has_frozen_tower();
        let layers: Vec<Part> = chunk.layer_parts().filter(|_| !is_frozen).collect();
        let layers = equal_runs(&layers).map(|(layer, n)| part(layer) * n);
        let mut seconds = layers.fold(part(Part::Stage), |sum, layers| sum + layers);
        if chunk.is_first() && !is_frozen {
            seconds += part(Part::First);
        }
        let adapters = chunk.stacked_layers() + usize::from(chunk.is_last());
        if adapters > 0 {
            seconds += part(Part::Last) * adapters as f64;
        }
        seconds * self.update_share
    }

    fn candidates(
        &self,
        chunk: &ChunkQuery<'_>,
        workload: Workload,
    ) -> Result<Vec<StageCost>, CostError> {
        let offered = |strategy: &LayerStrategy| match strategy {
            LayerStrategy::Keep => true,
            LayerStrategy::Selective | LayerStrategy::Full => self.recompute,
            LayerStrategy::Offload => self.offload,
        };
        LayerStrategy::ALL
            .iter()
            .filter(|s| **s == LayerStrategy::Keep || (chunk.layers_run_backward() && offered(s)))
            .map(|layer| {
                let strategy = Strategy::new(layer.name());
                self.stage(&StageQuery { chunk: chunk.clone(), workload, strategy: &strategy })
            })
            .collect()
    }
}

/// Every run of equal neighbours, with its length.
fn equal_runs<T: Copy + PartialEq>(all: &[T]) -> impl Iterator<Item = (T, f64)> + '_ {
    all.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as f64))
}

/// The counts that the activation bytes of a stage depend on.
fn kept_of(query: &StageQuery<'_>) -> KeptCounts {
    let work = &query.workload;
    KeptCounts {
        pairs: computed_pairs(query),
        trained_tokens: work.trained_tokens.max(1),
        context_tokens: work.context_tokens,
        cross_pairs: work.cross_pairs,
    }
}

/// Computed attention pairs, with the padding of the sequence as one more document. Clips, captions and the inputs of encoders are
/// not padded.
fn computed_pairs(query: &StageQuery<'_>) -> u64 {
    let (work, model) = (&query.workload, query.chunk.model);
    let modality = model.modules[query.chunk.module.index()].kind.modality();
    let is_padded = model.video().is_none() && !modality.has_adapter();
    let padding = u64::from(model.sequence_tokens).saturating_sub(work.tokens);
    let padding = if is_padded { causal_block_pairs(padding) } else { 0 };
    work.computed_pairs.saturating_add(padding)
}

/// The number of values that the stage sends to the next chunk.
fn output_values(query: &StageQuery<'_>) -> u64 {
    let chunk = &query.chunk;
    let spec = &chunk.model.modules[chunk.module.index()];
    let width = chunk.model.passed_width(chunk.module, chunk.layers.end);
    if !chunk.is_last() {
        return query.workload.tokens * width;
    }
    match spec.kind.modality().has_loss() {
        true => 0,
        false => query.workload.output_tokens * width,
    }
}
