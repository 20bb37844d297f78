//! A cost model from measurements.

use std::collections::BTreeMap;

use dip_core::profile::{KeptBytes, Part, Profile, ProfileEntry};
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
    weight_split: bool,
    averages: bool,
}

/// Times of one part, or of several together.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    forward: f64,
    inference: f64,
    backward: f64,
    input_gradient: f64,
    weight: f64,
    selective: f64,
    keep: KeptBytes,
    keep_selective: KeptBytes,
    keep_inputs: KeptBytes,
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
            weight_split: false,
            averages: false,
        }
    }

    /// The same for a run that keeps moving averages of the weights it trains.
    #[must_use]
    pub fn with_averages(mut self, averages: bool) -> Self {
        self.averages = averages;
        self
    }

    /// The same for task graphs in which weight gradients are tasks of their own: apart, the two tasks of a backward take
    /// longer than in one.
    #[must_use]
    pub fn with_weight_split(mut self, weight_split: bool) -> Self {
        self.weight_split = weight_split;
        self
    }

    fn part(&self, module: &str, part: Part, tokens: u64) -> Option<Times> {
        let points = self.points.get(&(module.to_owned(), part))?;
        interpolate(points, tokens)
    }

    /// Times of what a chunk has beside its layers, and of one layer.
    fn chunk(&self, query: &StageQuery<'_>) -> Result<(Times, Times), CostError> {
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
        let joint = ends.plus(layer, query.chunk.layers.len() as f64).backward;
        let chunk = &query.chunk;
        let spec = &chunk.model.modules[chunk.module.index()];
        let layers = query.strategy.layers(chunk.layers.len());
        let unknown = || CostError::Unknown {
            module: spec.name.clone(),
            what: format!("strategy {}", query.strategy),
            remedy: "measured costs know `keep`, `selective` and `full`".into(),
        };
        let layers = layers
            .filter(|layers| !layers.contains(&LayerStrategy::Offload))
            .ok_or_else(unknown)?;
        let times = layers.iter().fold(ends, |sum, strategy| {
            sum.plus(if chunk.runs_backward { layer.under(*strategy) } else { layer }, 1.0)
        });
        let splits = chunk.trainable && chunk.runs_backward;
        // What the tasks of a split backward take beyond the whole one.
        let apart = (times.input_gradient + times.weight - joint).max(0.0);
        let apart = if splits && self.weight_split { apart } else { 0.0 };
        let (forward, backward, activation) = match chunk.runs_backward {
            true => {
                let kept =
                    times.keep.of(computed_pairs(query), query.workload.trained_tokens.max(1));
                (times.forward, times.backward + apart, kept)
            }
            false => (times.inference, 0.0, Bytes::ZERO),
        };
        let weight = splits.then_some(Seconds(times.weight.min(backward)));
        Ok(StageCost {
            strategy: query.strategy.clone(),
            forward: Seconds(forward),
            backward: Seconds(backward),
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

    fn candidates(
        &self,
        chunk: &ChunkQuery<'_>,
        workload: Workload,
    ) -> Result<Vec<StageCost>, CostError> {
        let names: &[&str] = if self.recompute && chunk.runs_backward {
            &["keep", "selective", "full"]
        } else {
            &["keep"]
        };
        names
            .iter()
            .map(|&name| {
                let strategy = Strategy::new(name);
                self.stage(&StageQuery { chunk: chunk.clone(), workload, strategy: &strategy })
            })
            .collect()
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
fn interpolate(points: &[ProfileEntry], tokens: u64) -> Option<Times> {
    let first = points.first()?;
    if points.len() == 1 {
        return Some(Times::of(first));
    }
    let upper = match points.iter().position(|p| p.tokens >= tokens) {
        Some(i) => i.max(1),
        None => points.len() - 1,
    };
    let (low, high) = (&points[upper - 1], &points[upper]);
    let span = (high.tokens - low.tokens) as f64;
    let at = (tokens as f64 - low.tokens as f64) / span;
    let mix = Times::of(low).scaled(1.0 - at).plus(Times::of(high), at);
    Some(mix.not_negative())
}

impl Times {
    fn of(entry: &ProfileEntry) -> Self {
        Self {
            forward: entry.forward_s.0,
            inference: entry.inference_s.0,
            backward: entry.backward_s.0,
            input_gradient: entry.input_gradient_s.0,
            weight: entry.weight_s.0,
            selective: entry.selective_backward_s.0,
            keep: entry.keep,
            keep_selective: entry.selective,
            keep_inputs: entry.full,
        }
    }

    /// With other times.
    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self {
            forward: f(self.forward),
            inference: f(self.inference),
            backward: f(self.backward),
            input_gradient: f(self.input_gradient),
            weight: f(self.weight),
            selective: f(self.selective),
            ..self
        }
    }

    /// Those of a layer under a strategy.
    fn under(self, strategy: LayerStrategy) -> Self {
        let (forward, backward, keep) = match strategy {
            LayerStrategy::Selective => (self.forward, self.selective, self.keep_selective),
            LayerStrategy::Full => (self.inference, self.forward + self.backward, self.keep_inputs),
            _ => (self.forward, self.backward, self.keep),
        };
        Self { forward, backward, keep, ..self }
    }

    fn scaled(self, factor: f64) -> Self {
        Self::default().plus(self, factor)
    }

    fn not_negative(self) -> Self {
        self.map(|x| x.max(0.0))
    }

    fn plus(self, other: Self, times: f64) -> Self {
        Self {
            forward: self.forward + times * other.forward,
            inference: self.inference + times * other.inference,
            backward: self.backward + times * other.backward,
            input_gradient: self.input_gradient + times * other.input_gradient,
            weight: self.weight + times * other.weight,
            selective: self.selective + times * other.selective,
            keep: self.keep.plus(other.keep, times),
            keep_selective: self.keep_selective.plus(other.keep_selective, times),
            keep_inputs: self.keep_inputs.plus(other.keep_inputs, times),
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
            forward_s: Seconds(forward),
            inference_s: Seconds(forward),
            backward_s: Seconds(2.0 * forward),
            input_gradient_s: Seconds(forward),
            weight_s: Seconds(forward),
            selective_backward_s: Seconds(2.0 * forward),
            keep: KeptBytes { bytes: tokens as f64, ..KeptBytes::default() },
            selective: KeptBytes::default(),
            full: KeptBytes::default(),
        }
    }

    #[test]
    fn times_lie_on_lines_between_the_measured_sizes_and_beyond_them() {
        let points = [entry(10, 1.0), entry(20, 2.0), entry(40, 3.0)];
        let at = |tokens| interpolate(&points, tokens).unwrap().forward;
        assert_eq!([at(10), at(15), at(30), at(60), at(5)], [1.0, 1.5, 2.5, 4.0, 0.5]);
        assert_eq!(interpolate(&points[..1], 99).unwrap().forward, 1.0);
        assert!(interpolate(&[], 1).is_none());
    }

    #[test]
    fn a_line_that_falls_never_gives_negative_times() {
        let points = [entry(10, 3.0), entry(20, 1.0)];
        assert_eq!(interpolate(&points, 100).unwrap().forward, 0.0);
    }
}
