//! A cost model from measurements.

use std::collections::BTreeMap;

use dip_core::profile::{KeptBytes, KeptOf, Part, PartBytes, PartTimes, Profile, ProfileEntry};
use dip_core::{
    Bytes, ChunkQuery, CostError, CostModel, LayerStrategy, ModuleKind, RankId, Seconds, StageCost,
    StageQuery, Strategy, Workload, causal_block_pairs,
};

/// Bytes of a parameter with its gradient and two moments, which are single precision whatever the layers compute in.
const STATIC_BYTES_PER_PARAMETER: u64 = 16;
/// Bytes of its moving average, where a run keeps one.
const AVERAGE_BYTES_PER_PARAMETER: u64 = 4;

/// Seconds and bytes interpolated between the sizes that were measured.
#[derive(Debug, Clone)]
pub struct MeasuredCost {
    /// Points of each part of each module, by size.
    points: BTreeMap<(String, Part), Vec<ProfileEntry>>,
    link_latency: Seconds,
    link_bytes_per_s: f64,
    element_bytes: u64,
    recompute: bool,
    offload: bool,
    weight_split: bool,
    averages: bool,
    update_share: f64,
}

/// Times and bytes of one part, or of several together.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    times: PartTimes,
    kept: PartBytes,
}

/// What a stage pair costs of that under its strategy.
#[derive(Debug, Clone, Copy)]
struct Chosen {
    forward: Seconds,
    backward: Seconds,
    kept: KeptBytes,
}

impl MeasuredCost {
    /// A cost model that reads `profile`. With `recompute`, computing the attention cores or
    /// whole layers again is offered beside keeping everything.
    pub fn new(profile: &Profile, recompute: bool) -> Self {
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
            element_bytes: u64::from(profile.element_bytes),
            recompute,
            offload: false,
            weight_split: false,
            averages: false,
            update_share: 1.0,
        }
    }

    /// The same that offers to keep layers in host memory, too, beside whatever it computes again. Not for devices that share
    /// their memory with the host, where that frees none.
    #[must_use]
    pub fn with_offload(mut self, offload: bool) -> Self {
        self.offload = offload;
        self
    }

    /// The same for a run that keeps moving averages of the weights it trains.
    #[must_use]
    pub fn with_averages(mut self, averages: bool) -> Self {
        self.averages = averages;
        self
    }

    /// The same for replicas that each update only this share of the weights (ZeRO-1). What they then send each other is not in it.
    #[must_use]
    pub fn with_update_share(mut self, share: f64) -> Self {
        self.update_share = share;
        self
    }

    /// The same for task graphs in which weight gradients are tasks of their own: apart, the two tasks of a backward take
    /// longer than in one.
    #[must_use]
    pub fn with_weight_split(mut self, weight_split: bool) -> Self {
        self.weight_split = weight_split;
        self
    }

    fn part(&self, module: &str, part: Part, tokens: u64) -> Option<Cost> {
        let points = self.points.get(&(module.to_owned(), part))?;
        interpolate(points, tokens)
    }

    /// Seconds of the optimiser for a part: the mean over the sizes it was measured at, which make no difference.
    fn mean_update(&self, module: &str, part: Part) -> Seconds {
        let points = self.points.get(&(module.to_owned(), part)).map_or(&[][..], Vec::as_slice);
        let sum: Seconds = points.iter().map(|point| point.times.update_s).sum();
        sum / points.len().max(1) as f64
    }

    /// Times of what a chunk has beside its layers, and of one layer.
    fn chunk(&self, query: &StageQuery<'_>) -> Result<(Cost, Cost), CostError> {
        let chunk = &query.chunk;
        let module = &chunk.model.modules[chunk.module.index()].name;
        let tokens = query.workload.tokens;
        let unknown = |part: Part| CostError::Unknown {
            module: module.clone(),
            what: format!("part {part:?} at {tokens} tokens"),
            remedy: "measure the profile again".into(),
        };
        let part = |part| self.part(module, part, tokens).ok_or_else(|| unknown(part));
        let mut ends = part(Part::Stage)?;
        if chunk.is_first() {
            ends = ends.plus(part(Part::First)?, 1.0);
        }
        if chunk.is_last() {
            ends = ends.plus(part(Part::Last)?, 1.0);
        }
        Ok((ends, part(Part::Layer)?))
    }
}

impl CostModel for MeasuredCost {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        let (ends, layer) = self.chunk(query)?;
        let chunk = &query.chunk;
        let spec = &chunk.model.modules[chunk.module.index()];
        let layers = query.strategy.layers(chunk.layers.len()).ok_or_else(|| {
            let names = LayerStrategy::ALL.map(|s| format!("`{}`", s.name())).join(", ");
            CostError::Unknown {
                module: spec.name.clone(),
                what: format!("strategy {}", query.strategy),
                remedy: format!("measured costs know {names}"),
            }
        })?;
        let all = ends.plus(layer, layers.len() as f64).times;
        let Chosen { forward, backward, kept } = layers
            .iter()
            .fold(ends.under(LayerStrategy::Keep), |sum, &strategy| sum.and(layer.under(strategy)));
        let splits = chunk.trainable && chunk.runs_backward;
        // What the tasks of a split backward take beyond the whole one.
        let apart = all.input_gradient_s + all.weight_s - all.backward_s;
        let apart =
            if splits && self.weight_split { apart.max(Seconds::ZERO) } else { Seconds::ZERO };
        let (forward, backward, activation) = match chunk.runs_backward {
            true => {
                let kept = kept.of(kept_of(query));
                (forward, backward + apart, kept)
            }
            false => (all.inference_s, Seconds::ZERO, Bytes::ZERO),
        };
        let weight = splits.then_some(all.weight_s.min(backward));
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
        self.link_latency + Seconds(bytes.0 as f64 / self.link_bytes_per_s)
    }

    fn static_bytes(&self, chunk: &ChunkQuery<'_>) -> Bytes {
        let average = if self.averages { AVERAGE_BYTES_PER_PARAMETER } else { 0 };
        let each = if chunk.trainable { STATIC_BYTES_PER_PARAMETER + average } else { 4 };
        // In lower precision the layers multiply with a copy of the weights.
        let copy = if self.element_bytes < 4 { self.element_bytes } else { 0 };
        Bytes(crate::chunk_parameters(chunk).saturating_mul(each + copy))
    }

    fn update(&self, chunk: &ChunkQuery<'_>) -> Seconds {
        if !chunk.trainable {
            return Seconds::ZERO;
        }
        let module = &chunk.model.modules[chunk.module.index()].name;
        let part = |part| self.mean_update(module, part);
        let mut seconds = part(Part::Stage) + part(Part::Layer) * chunk.layers.len() as f64;
        if chunk.is_first() {
            seconds += part(Part::First);
        }
        if chunk.is_last() {
            seconds += part(Part::Last);
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
            .filter(|s| **s == LayerStrategy::Keep || (chunk.runs_backward && offered(s)))
            .map(|layer| {
                let strategy = Strategy::new(layer.name());
                self.stage(&StageQuery { chunk: chunk.clone(), workload, strategy: &strategy })
            })
            .collect()
    }
}

/// What the activations of a stage grow with.
fn kept_of(query: &StageQuery<'_>) -> KeptOf {
    let work = &query.workload;
    KeptOf {
        pairs: computed_pairs(query),
        trained_tokens: work.trained_tokens.max(1),
        context_tokens: work.context_tokens,
        cross_pairs: work.cross_pairs,
    }
}

/// Pairs of the sequence that is computed; its padding is a document, too. Clips and captions are not padded.
fn computed_pairs(query: &StageQuery<'_>) -> u64 {
    let (work, model) = (&query.workload, query.chunk.model);
    let is_padded = !model.modules.iter().any(|m| matches!(m.kind, ModuleKind::Dit { .. }));
    let padding = u64::from(model.sequence_tokens).saturating_sub(work.tokens);
    let padding = if is_padded { causal_block_pairs(padding) } else { 0 };
    work.computed_pairs.saturating_add(padding)
}

/// Values that the stage hands on.
fn output_values(query: &StageQuery<'_>) -> u64 {
    let chunk = &query.chunk;
    let spec = &chunk.model.modules[chunk.module.index()];
    if !chunk.is_last() {
        return query.workload.tokens * u64::from(spec.hidden);
    }
    match spec.kind {
        ModuleKind::Decoder { head: true, .. } | ModuleKind::Dit { .. } => 0,
        _ => query.workload.output_tokens * chunk.model.output_width(chunk.module),
    }
}

/// Piecewise linear between points, constant with a single one, and along the outermost two beyond them.
fn interpolate(points: &[ProfileEntry], tokens: u64) -> Option<Cost> {
    let first = points.first()?;
    if points.len() == 1 {
        return Some(Cost::of(first));
    }
    let upper = match points.iter().position(|p| p.tokens >= tokens) {
        Some(i) => i.max(1),
        None => points.len() - 1,
    };
    let (low, high) = (&points[upper - 1], &points[upper]);
    let span = (high.tokens - low.tokens) as f64;
    let at = (tokens as f64 - low.tokens as f64) / span;
    let mix = Cost::default().plus(Cost::of(low), 1.0 - at).plus(Cost::of(high), at);
    Some(Cost { times: mix.times.not_negative(), ..mix })
}

impl Cost {
    fn of(entry: &ProfileEntry) -> Self {
        Self { times: entry.times, kept: entry.kept }
    }

    /// That of a layer under a strategy.
    fn under(self, strategy: LayerStrategy) -> Chosen {
        let Self { times: t, kept } = self;
        let (forward, backward, kept) = match strategy {
            LayerStrategy::Keep => (t.forward_s, t.backward_s, kept.keep),
            LayerStrategy::Selective => (t.forward_s, t.selective_backward_s, kept.selective),
            LayerStrategy::Full => (t.inference_s, t.forward_s + t.backward_s, kept.full),
            LayerStrategy::Offload => (t.offload_forward_s, t.offload_backward_s, kept.offload),
        };
        Chosen { forward, backward, kept }
    }

    fn plus(self, other: Self, times: f64) -> Self {
        let kept = self.kept.plus(other.kept, times);
        Self { times: self.times.plus(other.times, times), kept }
    }
}

impl Chosen {
    fn and(self, other: Self) -> Self {
        Self {
            forward: self.forward + other.forward,
            backward: self.backward + other.backward,
            kept: self.kept.plus(other.kept, 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tokens: u64, forward: f64) -> ProfileEntry {
        ProfileEntry {
            module: "m".into(),
            part: Part::Layer,
            tokens,
            times: PartTimes { forward_s: Seconds(forward), ..PartTimes::default() },
            kept: PartBytes::default(),
        }
    }

    #[test]
    fn times_lie_on_lines_between_the_measured_sizes_and_beyond_them() {
        let points = [entry(10, 1.0), entry(20, 2.0), entry(40, 3.0)];
        let at = |tokens| interpolate(&points, tokens).unwrap().times.forward_s.0;
        assert_eq!([at(10), at(15), at(30), at(60), at(5)], [1.0, 1.5, 2.5, 4.0, 0.5]);
        assert_eq!(interpolate(&points[..1], 99).unwrap().times.forward_s.0, 1.0);
        assert!(interpolate(&[], 1).is_none());
    }

    #[test]
    fn a_line_that_falls_never_gives_negative_times() {
        let points = [entry(10, 3.0), entry(20, 1.0)];
        assert_eq!(interpolate(&points, 100).unwrap().times.forward_s.0, 0.0);
    }
}
