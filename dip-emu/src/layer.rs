//! The operators of each part of a module: its start, one layer, its end.
//!
//! Layers are shared by `t` devices in the way of Megatron-LM, with sequence parallelism: between two blocks each device has
//! `1 / t` of the tokens, a block gathers them before its first product and scatters the sum of its last. A collective on
//! `n` bytes makes a device send `(t - 1) / t * n`. Attention is one fused kernel that keeps no scores.
//!
//! Legend of widths: `h` hidden, `q` all query heads, `kv` all key-value heads, `f` feed-forward.

use dip_core::profile::Part;
use dip_core::{AUDIO_KERNEL, MEL_BANDS};
use dip_core::{Bytes, Flops, ModelSpec, ModuleId, ModuleKind, ModuleSpec, Workload};

use crate::operators::{Dag, OperatorKind, TensorId, Work};

/// Width of the sinusoidal embedding of a diffusion step.
const STEP_EMBEDDING: u64 = 256;
/// Bytes of the softmax statistic of one query and head.
const STATISTIC_BYTES: u64 = 4;

/// How a layer is spread and how wide its values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Devices that share a layer.
    pub tensor: u32,
    /// Bytes of one value.
    pub element_bytes: u32,
}

/// The operators of one part of a module for one sub-microbatch. [`Part::Stage`] has none.
pub fn operators(
    model: &ModelSpec,
    module: ModuleId,
    part: Part,
    work: &Workload,
    layout: Layout,
) -> Dag {
    let spec = &model.modules[module.index()];
    let mut b = Builder { dag: Dag::default(), spec, work: *work, layout };
    match part {
        Part::Stage => {}
        Part::First => {
            let inputs = model.inputs_of(module);
            let widths = inputs.iter().map(|m| u64::from(model.modules[m.index()].hidden));
            b.first(widths.sum());
        }
        Part::Layer => b.layer(),
        Part::Last => b.last(model.output_width(module)),
    }
    b.dag
}

/// Bytes of a residual stream of `tokens` on one device.
pub fn stream_bytes(tokens: u64, width: u64, layout: Layout) -> Bytes {
    let values = u128::from(tokens) * u128::from(width) * u128::from(layout.element_bytes);
    let share = values.div_ceil(u128::from(layout.tensor.max(1)));
    Bytes(u64::try_from(share).unwrap_or(u64::MAX))
}

struct Builder<'a> {
    dag: Dag,
    spec: &'a ModuleSpec,
    work: Workload,
    layout: Layout,
}

impl Builder<'_> {
    fn t(&self) -> u64 {
        u64::from(self.layout.tensor.max(1))
    }

    fn h(&self) -> u64 {
        u64::from(self.spec.hidden)
    }

    /// Bytes of a tensor that every device has whole.
    fn whole(&self, tokens: u64, width: u64) -> Bytes {
        stream_bytes(tokens, width, Layout { tensor: 1, ..self.layout })
    }

    /// Bytes of the share of one device.
    fn share(&self, tokens: u64, width: u64) -> Bytes {
        stream_bytes(tokens, width, self.layout)
    }

    fn first(&mut self, input_width: u64) {
        let (h, tokens) = (self.h(), self.work.tokens);
        let own = tokens.div_ceil(self.t());
        match self.spec.kind {
            ModuleKind::Vit { patch_px, tower, .. } => {
                let width = 3 * u64::from(tower.frames()) * u64::from(patch_px).pow(2);
                let pixels = self.dag.data(self.whole(own, width));
                self.linear("patch embedding", pixels, pixels, (own, width, h));
            }
            ModuleKind::Audio { .. } => {
                let sound = self.dag.data(self.whole(2 * own, AUDIO_KERNEL * MEL_BANDS));
                let x = self.linear(
                    "convolution 1",
                    sound,
                    sound,
                    (2 * own, AUDIO_KERNEL * MEL_BANDS, h),
                );
                let x = self.elementwise("gelu", &[x], true, self.whole(2 * own, h));
                let x = self.linear("convolution 2", x, x, (own, AUDIO_KERNEL * h, h));
                self.elementwise("gelu", &[x], true, self.whole(own, h));
            }
            ModuleKind::Decoder { .. } => {
                // Each device has a share of the vocabulary and looks up what it has.
                let rows = self.whole(tokens, h);
                let ids = self.dag.data(Bytes(4 * tokens));
                let work = self.work_of("token embedding", OperatorKind::Embedding, 0.0, rows);
                let x = self.dag.operator(work, &[ids], &[ids], &[rows])[0];
                self.scatter(x, tokens, h);
            }
            ModuleKind::Dit { token_channels, .. } => {
                let channels = u64::from(token_channels);
                let latents = self.dag.data(self.whole(own, channels));
                self.linear("patch embedding", latents, latents, (own, channels, h));
                let steps = u64::from(self.work.instances);
                let step = self.dag.data(self.whole(steps, STEP_EMBEDDING));
                let step =
                    self.linear("step embedding", step, step, (steps, STEP_EMBEDDING + h, h));
                self.linear("adaptive norm", step, step, (steps, h, 6 * h / self.t()));
                let context = self.context_tokens();
                if input_width > 0 && context > 0 {
                    let own = context.div_ceil(self.t());
                    let x = self.dag.input(self.whole(own, input_width));
                    self.linear("context projection", x, x, (own, input_width, h));
                }
            }
        }
    }

    fn layer(&mut self) {
        let x = self.dag.input(self.share(self.work.tokens, self.h()));
        let x = self.self_attention(x);
        let cross = matches!(self.spec.kind, ModuleKind::Dit { .. }) && self.context_tokens() > 0;
        let x = if cross { self.cross_attention(x) } else { x };
        self.feed_forward(x);
    }

    fn last(&mut self, output_width: u64) {
        let (h, t) = (self.h(), self.t());
        let (tokens, merged) = (self.work.tokens, self.work.output_tokens);
        let x = self.dag.input(self.share(tokens, h));
        let x = self.elementwise("norm", &[x], true, self.share(tokens, h));
        match self.spec.kind {
            ModuleKind::Vit { .. } | ModuleKind::Audio { .. } => {
                let (wide, inner) =
                    (self.spec.merged_width(), self.spec.adapter_width().div_ceil(t));
                let all = self.gather(x, merged, wide);
                let y = self.linear("adapter up", all, x, (merged, wide, inner));
                let y = self.elementwise("gelu", &[y], true, self.whole(merged, inner));
                let y = self.linear("adapter down", y, y, (merged, inner, output_width));
                self.scatter(y, merged, output_width);
            }
            ModuleKind::Decoder { vocab, head: true, .. } => {
                let own = u64::from(vocab).div_ceil(t);
                let all = self.gather(x, tokens, h);
                let logits = self.linear("head", all, x, (tokens, h, own));
                self.elementwise("loss", &[logits], true, Bytes(4 * tokens));
            }
            ModuleKind::Decoder { head: false, .. } => {}
            ModuleKind::Dit { token_channels, .. } => {
                let own = tokens.div_ceil(t);
                let y = self.linear("output", x, x, (own, h, token_channels.into()));
                self.elementwise("loss", &[y], true, Bytes(4 * own));
            }
        }
    }

    fn self_attention(&mut self, x: TensorId) -> TensorId {
        let (h, tokens) = (self.h(), self.work.tokens);
        let (heads, q, kv) = self.heads();
        let y = self.elementwise("norm", &[x], true, self.share(tokens, h));
        let all = self.gather(y, tokens, h);
        let qkv = self.linear("query key value", all, y, (tokens, h, q + 2 * kv));
        let pairs = self.work.attention_pairs;
        let y = self.attention("attention", &[qkv], pairs, heads);
        let y = self.linear("attention output", y, y, (tokens, q, h));
        let y = self.scatter(y, tokens, h);
        self.elementwise("residual", &[x, y], false, self.share(tokens, h))
    }

    fn cross_attention(&mut self, x: TensorId) -> TensorId {
        let (h, tokens) = (self.h(), self.work.tokens);
        let (heads, q, kv) = self.heads();
        let context_tokens = self.context_tokens();
        let context = self.dag.input(self.whole(context_tokens, h));
        let y = self.elementwise("norm", &[x], true, self.share(tokens, h));
        let all = self.gather(y, tokens, h);
        let queries = self.linear("cross query", all, y, (tokens, h, q));
        let keys = self.linear("cross key value", context, context, (context_tokens, h, 2 * kv));
        let pairs = self.work.cross_pairs;
        let y = self.attention("cross attention", &[queries, keys], pairs, heads);
        let y = self.linear("cross output", y, y, (tokens, q, h));
        let y = self.scatter(y, tokens, h);
        self.elementwise("residual", &[x, y], false, self.share(tokens, h))
    }

    fn feed_forward(&mut self, x: TensorId) -> TensorId {
        let (h, tokens) = (self.h(), self.work.tokens);
        let f = u64::from(self.spec.ffn).div_ceil(self.t());
        let y = self.elementwise("norm", &[x], true, self.share(tokens, h));
        let all = self.gather(y, tokens, h);
        let up = if self.spec.gated_ffn() { 2 * f } else { f };
        let y_up = self.linear("ffn up", all, y, (tokens, h, up));
        let y = self.elementwise("activation", &[y_up], true, self.whole(tokens, f));
        let y = self.linear("ffn down", y, y, (tokens, f, h));
        let y = self.scatter(y, tokens, h);
        self.elementwise("residual", &[x, y], false, self.share(tokens, h))
    }

    /// Heads of this device, and the widths of its queries and of its keys. A device has at least one key-value head.
    fn heads(&self) -> (u64, u64, u64) {
        let heads = u64::from(self.spec.heads).div_ceil(self.t());
        let kv = u64::from(self.spec.kv_heads()).div_ceil(self.t());
        let width = u64::from(self.spec.head_dim());
        (heads, heads * width, kv * width)
    }

    /// Tokens of the context of cross attention: a clip of mean length meets a caption of mean length.
    fn context_tokens(&self) -> u64 {
        let w = &self.work;
        match w.tokens {
            0 => 0,
            tokens => w.cross_pairs.saturating_mul(w.instances.into()).div_ceil(tokens),
        }
    }

    fn work_of(&self, name: &'static str, kind: OperatorKind, flops: f64, weights: Bytes) -> Work {
        Work { name, kind, flops: Flops(flops), weights, network: Bytes::ZERO }
    }

    /// A product of `(rows, inner, outer)`; `saved` is what the weight gradient reads instead of a gathered `x`.
    fn linear(
        &mut self,
        name: &'static str,
        x: TensorId,
        saved: TensorId,
        (rows, inner, outer): (u64, u64, u64),
    ) -> TensorId {
        let flops = 2.0 * rows as f64 * inner as f64 * outer as f64;
        let work = self.work_of(name, OperatorKind::Matmul, flops, self.whole(inner, outer));
        self.dag.operator(work, &[x], &[saved], &[self.whole(rows, outer)])[0]
    }

    fn attention(
        &mut self,
        name: &'static str,
        inputs: &[TensorId],
        pairs: u64,
        heads: u64,
    ) -> TensorId {
        let width = heads * u64::from(self.spec.head_dim());
        let flops = 4.0 * pairs as f64 * width as f64;
        let work = self.work_of(name, OperatorKind::Attention, flops, Bytes::ZERO);
        let tokens = self.work.tokens;
        let statistics = tokens.saturating_mul(heads * STATISTIC_BYTES);
        let writes = [self.whole(tokens, width), Bytes(statistics)];
        let outputs = self.dag.operator(work, inputs, inputs, &writes);
        self.dag.save_outputs();
        outputs[0]
    }

    fn elementwise(
        &mut self,
        name: &'static str,
        x: &[TensorId],
        saves: bool,
        writes: Bytes,
    ) -> TensorId {
        let kind = match name {
            "norm" => OperatorKind::Norm,
            "activation" | "gelu" => OperatorKind::Activation,
            _ => OperatorKind::Elementwise,
        };
        let work = self.work_of(name, kind, 0.0, Bytes::ZERO);
        self.dag.operator(work, x, if saves { x } else { &[] }, &[writes])[0]
    }

    fn gather(&mut self, x: TensorId, tokens: u64, width: u64) -> TensorId {
        self.collective("gather", x, (tokens, width), self.whole(tokens, width))
    }

    fn scatter(&mut self, x: TensorId, tokens: u64, width: u64) -> TensorId {
        self.collective("scatter", x, (tokens, width), self.share(tokens, width))
    }

    fn collective(
        &mut self,
        name: &'static str,
        x: TensorId,
        (tokens, width): (u64, u64),
        writes: Bytes,
    ) -> TensorId {
        if self.t() == 1 {
            return x;
        }
        let others = self.whole(tokens, width).saturating_sub(self.share(tokens, width));
        let mut work = self.work_of(name, OperatorKind::Collective, 0.0, Bytes::ZERO);
        work.network = others;
        self.dag.operator(work, &[x], &[], &[writes])[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::presets;

    fn dag(model: &str, module: &str, part: Part, work: Workload, tensor: u32) -> Dag {
        let model = presets::model(model).unwrap();
        let (id, _) = model.module(module).unwrap();
        operators(&model, id, part, &work, Layout { tensor, element_bytes: 2 })
    }

    fn tokens(tokens: u64) -> Workload {
        let pairs = tokens * tokens;
        Workload { instances: 1, tokens, attention_pairs: pairs, ..Workload::default() }
    }

    #[test]
    fn a_plain_layer_keeps_what_its_gradients_need() {
        let (t, h, f, heads) = (2704, 1792, 15360, 16);
        let layer = dag("vlm-s", "vision", Part::Layer, tokens(t), 1);
        // Inputs of two norms and of four products, queries, keys and values, and the input of the activation.
        let kept = 2 * t * (2 * h + (h + h + h + f) + 3 * h + f);
        assert_eq!(layer.saved(true, false), Bytes(kept + 4 * t * heads));
        assert_eq!(layer.saved(true, true), Bytes(kept - 2 * t * h), "no attention output");
        let shared = dag("vlm-s", "vision", Part::Layer, tokens(t), 4);
        assert_eq!(shared.saved(true, false), Bytes((kept + 4 * t * heads) / 4));
    }

    #[test]
    fn a_gated_layer_with_few_key_heads_keeps_both_halves_of_its_gate() {
        let (t, h, f, kv) = (1024, 4096, 14336, 1024);
        let layer = dag("vlm-s", "language", Part::Layer, tokens(t), 1);
        let kept = 2 * t * (2 * h + (h + h + h + f) + (h + 2 * kv) + 2 * f) + 4 * t * 32;
        assert_eq!(layer.saved(true, false), Bytes(kept));
    }

    #[test]
    fn devices_that_share_a_layer_gather_and_scatter_twice() {
        let (t, h) = (1024, 4096);
        let sent = |tensor| {
            let layer = dag("vlm-s", "language", Part::Layer, tokens(t), tensor);
            let sent = |op: &crate::operators::Operator| op.network.0;
            layer.operators(crate::operators::Pass::Forward).iter().map(sent).sum::<u64>()
        };
        assert_eq!(sent(1), 0);
        assert_eq!(sent(4), 4 * (2 * t * h * 3 / 4));
    }

    #[test]
    fn heads_that_do_not_divide_leave_one_device_with_more() {
        // 20 heads of Whisper on 8 devices: the slowest has 3.
        let layer = dag("omni-l", "audio", Part::Layer, tokens(100), 8);
        let core = layer.operators(crate::operators::Pass::Forward);
        let core = core.iter().find(|op| op.kind == OperatorKind::Attention).unwrap();
        assert_eq!(core.flops, Flops(4.0 * 1e4 * f64::from(3 * 64)));
    }

    #[test]
    fn every_part_of_every_preset_has_operators() {
        for name in presets::model_names() {
            let model = presets::model(name).unwrap();
            for module in &model.modules {
                let work = Workload { output_tokens: 10, cross_pairs: 500, ..tokens(100) };
                for part in [Part::First, Part::Layer, Part::Last] {
                    let dag = dag(name, &module.name, part, work, model.parallel.tensor);
                    assert!(!dag.operators(crate::operators::Pass::Forward).is_empty());
                    assert!(dag.peak() > Bytes::ZERO, "{name} {} {part:?}", module.name);
                }
                let none = dag(name, &module.name, Part::Stage, work, 1);
                assert!(none.operators(crate::operators::Pass::Forward).is_empty());
            }
        }
    }
}
