//! Grouped-query attention of a sequence over itself, with rotary positions, or over a context.
//!
//! Shape legend: r rows of all sequences, c rows of their contexts, m model width, h heads, k key-value heads, d head width.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{LoraTarget, ModuleSpec, QueryKeyNorm};

use super::cache::Continuation;
use super::core::{
    AttentionInputs, attend, attend_backward, attend_only, each_weights, keeps_weights,
    score_gradients,
};
use super::geometry::Geometry;
use super::heads::HeadSizes;
use super::linear::{Linear, linear_backward};
use super::norm::{Norm, NormKept};
use crate::kernels::{PackedAttention, kernels};
use crate::model::Init;
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::init::layer_std;
use crate::model::offload::{KeptTensors, TensorVisitor};

/// Projections of one attention layer.
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    /// `[m, h * d]`
    pub query: Linear<B>,
    /// `[m, k * d]`
    pub key: Linear<B>,
    /// `[m, k * d]`
    pub value: Linear<B>,
    /// `[h * d, m]`
    pub output: Linear<B>,
    /// Norm of the queries: of each head, or of all heads together.
    pub query_norm: Option<Norm<B>>,
    /// Norm of the keys.
    pub key_norm: Option<Norm<B>>,
    heads: HeadSizes,
    /// Factor of the scores.
    scale: f64,
    /// True if a token attends only to the tokens of its window.
    windowed: bool,
}

/// The weights of every span and what they attend to.
type KeptWeights<B> = (Vec<Tensor<B, 4>>, Tensor<B, 2>);

impl<B: Backend> Attention<B> {
    /// The attention of layer `path` of a module.
    pub fn init(spec: &ModuleSpec, path: &str, init: &Init<'_, B>) -> Self {
        let heads = HeadSizes::of(spec);
        let width = spec.hidden as usize;
        let (query, key) = (heads.heads * heads.head_dim, heads.kv_heads * heads.head_dim);
        let std = layer_std(spec);
        let residual = std / (2.0 * f64::from(spec.layers)).sqrt();
        let bias = spec.attention_bias();
        let linear = |target: LoraTarget, input, output, std| {
            let path = format!("{path}.attention.{}", target.name());
            let layer = init.linear(&path, input, output, bias.of(target), std);
            init.adapted(spec, target, &path, layer)
        };
        Self {
            query: linear(LoraTarget::Query, width, query, std),
            key: linear(LoraTarget::Key, width, key, std),
            value: linear(LoraTarget::Value, width, key, std),
            output: linear(LoraTarget::Output, query, width, residual),
            query_norm: query_key_norm(spec, query, init),
            key_norm: query_key_norm(spec, key, init),
            heads,
            scale: 1.0 / (heads.head_dim as f64).sqrt(),
            windowed: false,
        }
    }

    /// The same attention without the factor of the scores.
    #[must_use]
    pub(in crate::model) fn unscaled(self) -> Self {
        Self { scale: 1.0, ..self }
    }

    /// The same attention, which reads only the tokens of a window if `windowed`.
    #[must_use]
    pub fn with_window(self, windowed: bool) -> Self {
        Self { windowed, ..self }
    }

    /// Attention of `x_rm` over itself.
    pub(in crate::model) fn forward(
        &self,
        x_rm: Tensor<B, 2>,
        geometry: &Geometry<B>,
    ) -> (Tensor<B, 2>, AttentionKept<B>) {
        self.forward_over([x_rm.clone(), x_rm], geometry)
    }

    /// The gradient of `x_rm`.
    pub(in crate::model) fn backward(
        &self,
        x_rm: Tensor<B, 2>,
        given: AttentionGiven<'_, B>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let [dx, d_context] = self.backward_over([x_rm.clone(), x_rm], given, gradients);
        dx + d_context
    }

    /// Attention of `x_rm` over `context_cm`.
    pub(in crate::model) fn forward_over(
        &self,
        [x_rm, context_cm]: [Tensor<B, 2>; 2],
        geometry: &Geometry<B>,
    ) -> (Tensor<B, 2>, AttentionKept<B>) {
        let (inputs, norms) = self.inputs([x_rm, context_cm], geometry);
        if let Some(ranges) = geometry.ranges(self.windowed) {
            let packed = kernels().packed_attention(&self.packing(&inputs), ranges);
            let y = self.output.forward(packed[0].clone());
            return (y, AttentionKept { inputs, norms, weights: None, packed: Some(packed) });
        }
        let spans = geometry.spans(self.windowed);
        let (weights, attended) = match keeps_weights(spans, self.heads) {
            true => {
                let (weights, attended) = attend(&inputs, spans, self.heads);
                (Some((weights, attended.clone())), attended)
            }
            false => (None, attend_only(&inputs, spans, self.heads)),
        };
        let y = self.output.forward(attended.clone());
        (y, AttentionKept { inputs, norms, weights, packed: None })
    }

    /// Attention of new tokens `x_rm` over themselves and the tokens before them, whose keys and values are `cached`.
    pub(in crate::model) fn extend(
        &self,
        x_rm: Tensor<B, 2>,
        at: &Continuation<B>,
        cached: &mut Option<[Tensor<B, 2>; 2]>,
    ) -> Tensor<B, 2> {
        let (inputs, _) = self.inputs([x_rm.clone(), x_rm], &at.geometry);
        let AttentionInputs { query, key, value } = inputs;
        let [key, value] = at.extend(self.windowed, cached, [key, value]);
        let inputs = AttentionInputs { query, key, value };
        let spans = at.geometry.spans(self.windowed);
        self.output.forward(attend_only(&inputs, spans, self.heads))
    }

    /// Queries of `x_rm`, and keys and values of `context_cm`, with the states of the norms of queries and keys.
    fn inputs(
        &self,
        [x_rm, context_cm]: [Tensor<B, 2>; 2],
        geometry: &Geometry<B>,
    ) -> (AttentionInputs<B>, [Option<NormKept<B>>; 2]) {
        let (query, query_norm) = normed(&self.query_norm, self.query.forward(x_rm));
        let (key, key_norm) = normed(&self.key_norm, self.key.forward(context_cm.clone()));
        let [query, key] = geometry.rotate([query, key]);
        let value = self.value.forward(context_cm);
        (AttentionInputs { query: query * self.scale, key, value }, [query_norm, key_norm])
    }

    /// The gradients of `x_rm` and `context_cm`.
    pub(in crate::model) fn backward_over(
        &self,
        [x_rm, context_cm]: [Tensor<B, 2>; 2],
        given: AttentionGiven<'_, B>,
        gradients: &mut Gradients<B>,
    ) -> [Tensor<B, 2>; 2] {
        let AttentionGiven { kept, dy, geometry } = given;
        let AttentionKept { inputs, norms: [query_norm, key_norm], weights, packed } = kept;
        let d = match geometry.ranges(self.windowed) {
            Some(ranges) => {
                let given = self.packing(&inputs);
                let packed = packed.unwrap_or_else(|| kernels().packed_attention(&given, ranges));
                let dy = linear_backward(&self.output, packed[0].clone(), dy, gradients);
                let d = kernels().packed_attention_backward(&given, ranges, packed, dy);
                let [query, key, value] = d;
                AttentionInputs { query, key, value }
            }
            None => self.spans_backward((inputs, weights), dy, geometry, gradients),
        };
        let [d_query, d_key] = geometry.rotate_back([d.query * self.scale, d.key]);
        let d_query = normed_backward(&self.query_norm, query_norm, d_query, gradients);
        let d_key = normed_backward(&self.key_norm, key_norm, d_key, gradients);
        let dx = linear_backward(&self.query, x_rm, d_query, gradients);
        let d_context = linear_backward(&self.key, context_cm.clone(), d_key, gradients)
            + linear_backward(&self.value, context_cm, d.value, gradients);
        [dx, d_context]
    }

    /// The inputs of attention that computes all sequences at once.
    fn packing(&self, inputs: &AttentionInputs<B>) -> PackedAttention<B> {
        let AttentionInputs { query, key, value } = inputs.clone();
        let HeadSizes { heads, kv_heads, head_dim } = self.heads;
        PackedAttention { query, key, value, heads, kv_heads, head_dim }
    }

    /// The gradients of the inputs of attention span by span, from the gradient of the layer.
    fn spans_backward(
        &self,
        (inputs, weights): (AttentionInputs<B>, Option<KeptWeights<B>>),
        dy: Tensor<B, 2>,
        geometry: &Geometry<B>,
        gradients: &mut Gradients<B>,
    ) -> AttentionInputs<B> {
        let heads = self.heads;
        let spans = geometry.spans(self.windowed);
        let (weights, attended) = match weights {
            Some((weights, attended)) => (Some(weights), attended),
            None if keeps_weights(spans, heads) => {
                let (weights, attended) = attend(&inputs, spans, heads);
                (Some(weights), attended)
            }
            None => (None, attend_only(&inputs, spans, heads)),
        };
        let dy = linear_backward(&self.output, attended, dy, gradients);
        match weights {
            Some(weights) => attend_backward(&inputs, spans, heads, weights, &dy),
            None => {
                let weights = each_weights(&inputs, spans, heads);
                attend_backward(&inputs, spans, heads, weights, &dy)
            }
        }
    }

    /// The gradient of the scores of every span, `[1, h, s, t]`, where `dy` is the gradient of the output. Only for heads that share
    /// no keys.
    pub(in crate::model) fn score_gradients(
        &self,
        kept: AttentionKept<B>,
        dy: Tensor<B, 2>,
        geometry: &Geometry<B>,
    ) -> Vec<Tensor<B, 4>> {
        let AttentionKept { inputs, weights, .. } = kept;
        let spans = geometry.spans(false);
        let (weights, _) = weights.unwrap_or_else(|| attend(&inputs, spans, self.heads));
        let d_attended = kernels().product(dy, self.output.weight.val().transpose(), None);
        score_gradients(&inputs, spans, self.heads, weights, &d_attended)
    }
}

/// The norm of queries or keys of `width` values.
fn query_key_norm<B: Backend>(
    spec: &ModuleSpec,
    width: usize,
    init: &Init<'_, B>,
) -> Option<Norm<B>> {
    let width = match spec.options.query_key_norm? {
        QueryKeyNorm::Head => spec.head_dim() as usize,
        QueryKeyNorm::AcrossHeads => width,
    };
    Some(Norm::rms(width, init).with_epsilon(spec.options.norm_epsilon))
}

/// Queries or keys `[r, h * d]` after their norm, if there is one. A row of the norm is one head, or all heads.
fn normed<B: Backend>(
    norm: &Option<Norm<B>>,
    x: Tensor<B, 2>,
) -> (Tensor<B, 2>, Option<NormKept<B>>) {
    let Some(norm) = norm else { return (x, None) };
    let shape = x.dims();
    let (y, kept) = norm.forward(rows_of_norm(norm, x));
    (y.reshape(shape), Some(kept))
}

/// The gradient of `x` in [`normed`].
fn normed_backward<B: Backend>(
    norm: &Option<Norm<B>>,
    kept: Option<NormKept<B>>,
    dy: Tensor<B, 2>,
    gradients: &mut Gradients<B>,
) -> Tensor<B, 2> {
    let (Some(norm), Some(kept)) = (norm, kept) else { return dy };
    let shape = dy.dims();
    norm.backward(kept, rows_of_norm(norm, dy), gradients).reshape(shape)
}

fn rows_of_norm<B: Backend>(norm: &Norm<B>, x: Tensor<B, 2>) -> Tensor<B, 2> {
    let [rows, all] = x.dims();
    let width = norm.gamma.as_ref().map_or(all, |gamma| gamma.dims()[0]);
    x.reshape([rows * all / width, width])
}

/// The inputs of the backward.
pub(in crate::model) struct AttentionGiven<'a, B: Backend> {
    /// The state that the forward kept.
    pub kept: AttentionKept<B>,
    /// The gradient of the output.
    pub dy: Tensor<B, 2>,
    pub geometry: &'a Geometry<B>,
}

/// The state that the backward needs.
#[derive(Debug, Clone)]
pub(in crate::model) struct AttentionKept<B: Backend> {
    inputs: AttentionInputs<B>,
    /// Of queries and keys.
    norms: [Option<NormKept<B>>; 2],
    /// The weights of every span, and their sums over the values; recomputed if they are not kept.
    weights: Option<(Vec<Tensor<B, 4>>, Tensor<B, 2>)>,
    /// The sums over the values and the logarithms of the softmax's denominators, where all sequences are computed at once; recomputed
    /// if they are not kept.
    packed: Option<[Tensor<B, 2>; 2]>,
}

impl<B: Backend> KeptTensors<B> for AttentionKept<B> {
    fn each<V: TensorVisitor<B>>(&mut self, visit: &mut V) {
        let AttentionInputs { query, key, value } = &mut self.inputs;
        [query, key, value].into_iter().for_each(|x| visit.tensor(x));
        self.norms.iter_mut().flatten().for_each(|norm| norm.each(visit));
        if let Some((weights, sums)) = &mut self.weights {
            weights.iter_mut().for_each(|weights| visit.tensor(weights));
            visit.tensor(sums);
        }
        self.packed.iter_mut().flatten().for_each(|x| visit.tensor(x));
    }
}

impl<B: Backend> AttentionKept<B> {
    /// The same without the results of the attention core.
    pub(in crate::model) fn selective(self) -> Self {
        Self { weights: None, packed: None, ..self }
    }

    pub(in crate::model) fn bytes(&self) -> u64 {
        let weights = |(weights, sums): &(Vec<Tensor<B, 4>>, Tensor<B, 2>)| {
            weights.iter().map(bytes_of).sum::<u64>() + bytes_of(sums)
        };
        let norms = self.norms.iter().flatten().map(NormKept::bytes).sum::<u64>();
        let packed = self.packed.iter().flatten().map(bytes_of).sum::<u64>();
        self.inputs.bytes() + norms + self.weights.as_ref().map_or(0, weights) + packed
    }
}
