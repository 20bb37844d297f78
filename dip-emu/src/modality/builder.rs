//! Builds the operators of one part of a module.
//!
//! Layers are shared by `t` devices as in Megatron-LM, with sequence parallelism. Between blocks each device has `1 / t` of the
//! tokens. A block gathers all tokens before its first product, and scatters the sum of its last product. In a collective on
//! `n` bytes a device sends `(t - 1) / t * n`. Attention is one fused kernel that keeps no scores.
//!
//! Legend of widths: `h` hidden, `q` all query heads, `kv` all key-value heads, `f` feed-forward.

use dip_core::{Bytes, Flops, ModuleSpec, Workload};

use super::DeviceLayout;
use crate::operators::{Dag, OperatorKind, TensorId, Work};

/// Bytes of the softmax statistic of one query and head.
const STATISTIC_BYTES: u64 = 4;

/// The bytes of a tensor `[tokens, width]` on one of the devices that share it.
pub fn stream_bytes(tokens: u64, width: u64, layout: DeviceLayout) -> Bytes {
    let values = u128::from(tokens) * u128::from(width) * u128::from(layout.element_bytes);
    let share = values.div_ceil(u128::from(layout.tensor.max(1)));
    Bytes(u64::try_from(share).unwrap_or(u64::MAX))
}

/// Builds the operators of one part of a module for one sub-microbatch.
#[derive(Debug)]
pub struct PartBuilder<'a> {
    dag: Dag,
    module: &'a ModuleSpec,
    work: Workload,
    layout: DeviceLayout,
}

/// The sizes of a matrix product: `[rows, inner]` by `[inner, outer]`.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// Rows of the result.
    pub rows: u64,
    /// Columns of the first matrix, and rows of the second.
    pub inner: u64,
    /// Columns of the result.
    pub outer: u64,
}

impl<'a> PartBuilder<'a> {
    pub(super) fn new(module: &'a ModuleSpec, work: Workload, layout: DeviceLayout) -> Self {
        Self { dag: Dag::default(), module, work, layout }
    }

    pub(super) fn finish(self) -> Dag {
        self.dag
    }

    /// The module.
    pub fn module(&self) -> &'a ModuleSpec {
        self.module
    }

    /// The workload of the sub-microbatch.
    pub fn work(&self) -> &Workload {
        &self.work
    }

    /// The number of devices that share a layer.
    pub fn devices(&self) -> u64 {
        u64::from(self.layout.tensor.max(1))
    }

    /// The width of the residual stream.
    pub fn hidden(&self) -> u64 {
        u64::from(self.module.hidden)
    }

    /// The bytes of a tensor `[tokens, width]` that every device has whole.
    pub fn whole(&self, tokens: u64, width: u64) -> Bytes {
        stream_bytes(tokens, width, DeviceLayout { tensor: 1, ..self.layout })
    }

    /// The bytes of one device's share of a tensor `[tokens, width]`.
    pub fn share(&self, tokens: u64, width: u64) -> Bytes {
        stream_bytes(tokens, width, self.layout)
    }

    /// Adds the residual stream at the start of the part. It has a gradient.
    pub fn stream(&mut self) -> TensorId {
        let bytes = self.share(self.work.tokens, self.hidden());
        self.dag.input(bytes)
    }

    /// Adds a tensor from another stage. It has a gradient.
    pub fn input(&mut self, bytes: Bytes) -> TensorId {
        self.dag.input(bytes)
    }

    /// Adds raw data. It has no gradient.
    pub fn data(&mut self, bytes: Bytes) -> TensorId {
        self.dag.data(bytes)
    }

    /// Adds a table look-up that reads `ids` and one row for each id.
    pub fn embedding(&mut self, name: &'static str, ids: TensorId, rows: Bytes) -> TensorId {
        let work = work_of(name, OperatorKind::Embedding, 0.0, rows);
        self.dag.operator(work, &[ids], &[ids], &[rows])[0]
    }

    /// Adds the layer of most modules: self-attention and a feed-forward network.
    pub fn transformer_layer(&mut self) {
        let x = self.stream();
        let x = self.self_attention(x);
        self.feed_forward(x);
    }

    /// Adds the adapter of an encoder: a norm, and two linear layers on merged tokens.
    pub fn adapter(&mut self, output_width: u64) {
        let merged = self.work.output_tokens;
        let x = self.stream();
        let x = self.norm(x);
        let wide = self.module.merged_width();
        let inner = self.module.adapter_width().div_ceil(self.devices());
        let all = self.gather(x, merged, wide);
        let product = Product { rows: merged, inner: wide, outer: inner };
        let y = self.linear("adapter up", all, x, product);
        let y = self.activation("gelu", y, self.whole(merged, inner));
        let product = Product { rows: merged, inner, outer: output_width };
        let y = self.linear("adapter down", y, y, product);
        self.scatter(y, merged, output_width);
    }

    /// Adds the adapter of one matrix: a norm, and one linear layer on merged tokens.
    pub fn linear_adapter(&mut self, output_width: u64) {
        let merged = self.work.output_tokens;
        let x = self.stream();
        let x = self.norm(x);
        let inner = self.module.merged_width();
        let all = self.gather(x, merged, inner);
        let outer = output_width.div_ceil(self.devices());
        self.linear("adapter", all, x, Product { rows: merged, inner, outer });
    }

    /// Adds self-attention with its norm and residual.
    pub fn self_attention(&mut self, x: TensorId) -> TensorId {
        let (h, tokens) = (self.hidden(), self.work.tokens);
        let (heads, q, kv) = self.heads();
        let y = self.norm(x);
        let all = self.gather(y, tokens, h);
        let qkv = self.linear(
            "query key value",
            all,
            y,
            Product { rows: tokens, inner: h, outer: q + 2 * kv },
        );
        let pairs = self.work.attention_pairs;
        let y = match self.query_key_norm(qkv, tokens, q + kv) {
            Some(normed) => self.attention("attention", &[normed, qkv], pairs, heads),
            None => self.attention("attention", &[qkv], pairs, heads),
        };
        let y = self.linear("attention output", y, y, Product { rows: tokens, inner: q, outer: h });
        let y = self.scatter(y, tokens, h);
        self.residual(x, y)
    }

    /// Adds cross attention to the inputs of the module, with its norm and residual.
    pub fn cross_attention(&mut self, x: TensorId) -> TensorId {
        let (h, tokens) = (self.hidden(), self.work.tokens);
        let (heads, q, kv) = self.heads();
        let context_tokens = self.context_tokens();
        let context = self.dag.input(self.whole(context_tokens, h));
        let y = self.norm(x);
        let all = self.gather(y, tokens, h);
        let queries =
            self.linear("cross query", all, y, Product { rows: tokens, inner: h, outer: q });
        let keys = self.linear(
            "cross key value",
            context,
            context,
            Product { rows: context_tokens, inner: h, outer: 2 * kv },
        );
        let pairs = self.work.cross_pairs;
        let queries = self.query_key_norm(queries, tokens, q).unwrap_or(queries);
        let y = match self.query_key_norm(keys, context_tokens, kv) {
            Some(normed) => {
                self.attention("cross attention", &[queries, normed, keys], pairs, heads)
            }
            None => self.attention("cross attention", &[queries, keys], pairs, heads),
        };
        let y = self.linear("cross output", y, y, Product { rows: tokens, inner: q, outer: h });
        let y = self.scatter(y, tokens, h);
        self.residual(x, y)
    }

    /// Adds the feed-forward network with its norm and residual.
    pub fn feed_forward(&mut self, x: TensorId) -> TensorId {
        let (h, tokens) = (self.hidden(), self.work.tokens);
        let f = u64::from(self.module.ffn).div_ceil(self.devices());
        let y = self.norm(x);
        let all = self.gather(y, tokens, h);
        let up = if self.module.gated_ffn() { 2 * f } else { f };
        let y_up = self.linear("ffn up", all, y, Product { rows: tokens, inner: h, outer: up });
        let y = self.activation("activation", y_up, self.whole(tokens, f));
        let y = self.linear("ffn down", y, y, Product { rows: tokens, inner: f, outer: h });
        let y = self.scatter(y, tokens, h);
        self.residual(x, y)
    }

    /// Adds the norms of the queries and keys in `x`, `[tokens, width]` of its values; `None` if the module has none.
    fn query_key_norm(&mut self, x: TensorId, tokens: u64, width: u64) -> Option<TensorId> {
        self.module.options.query_key_norm?;
        let work = work_of("query key norm", OperatorKind::Norm, 0.0, Bytes::ZERO);
        Some(self.dag.operator(work, &[x], &[x], &[self.whole(tokens, width)])[0])
    }

    /// The number of heads on this device, and the widths of its queries and of its keys. A device has at least one
    /// key-value head.
    fn heads(&self) -> (u64, u64, u64) {
        let heads = u64::from(self.module.heads).div_ceil(self.devices());
        let kv = u64::from(self.module.kv_heads()).div_ceil(self.devices());
        let width = u64::from(self.module.head_dim());
        (heads, heads * width, kv * width)
    }

    /// The number of context tokens of cross attention, as if all clips and all captions had the mean length.
    pub fn context_tokens(&self) -> u64 {
        let w = &self.work;
        match w.tokens {
            0 => 0,
            tokens => w.cross_pairs.saturating_mul(w.instances.into()).div_ceil(tokens),
        }
    }

    /// Adds a linear layer. The weight gradient reads `saved` instead of a gathered `x`.
    pub fn linear(
        &mut self,
        name: &'static str,
        x: TensorId,
        saved: TensorId,
        product: Product,
    ) -> TensorId {
        let Product { rows, inner, outer } = product;
        let flops = 2.0 * rows as f64 * inner as f64 * outer as f64;
        let work = work_of(name, OperatorKind::Matmul, flops, self.whole(inner, outer));
        self.dag.operator(work, &[x], &[saved], &[self.whole(rows, outer)])[0]
    }

    /// Adds an attention core over `pairs` query-key pairs.
    pub fn attention(
        &mut self,
        name: &'static str,
        inputs: &[TensorId],
        pairs: u64,
        heads: u64,
    ) -> TensorId {
        let width = heads * u64::from(self.module.head_dim());
        let flops = 4.0 * pairs as f64 * width as f64;
        let work = work_of(name, OperatorKind::Attention, flops, Bytes::ZERO);
        let tokens = self.work.tokens;
        let statistics = tokens.saturating_mul(heads * STATISTIC_BYTES);
        let writes = [self.whole(tokens, width), Bytes(statistics)];
        let outputs = self.dag.operator(work, inputs, inputs, &writes);
        self.dag.save_outputs();
        outputs[0]
    }

    /// Adds a norm of the residual stream.
    pub fn norm(&mut self, x: TensorId) -> TensorId {
        let writes = self.share(self.work.tokens, self.hidden());
        let work = work_of("norm", OperatorKind::Norm, 0.0, Bytes::ZERO);
        self.dag.operator(work, &[x], &[x], &[writes])[0]
    }

    /// Adds an activation function that writes a tensor of `writes` bytes.
    pub fn activation(&mut self, name: &'static str, x: TensorId, writes: Bytes) -> TensorId {
        let work = work_of(name, OperatorKind::Activation, 0.0, Bytes::ZERO);
        self.dag.operator(work, &[x], &[x], &[writes])[0]
    }

    /// Adds the sum of the residual stream `x` and the output `y` of a block.
    fn residual(&mut self, x: TensorId, y: TensorId) -> TensorId {
        let writes = self.share(self.work.tokens, self.hidden());
        let work = work_of("residual", OperatorKind::Elementwise, 0.0, Bytes::ZERO);
        self.dag.operator(work, &[x, y], &[], &[writes])[0]
    }

    /// Adds the losses of `tokens` from their predictions `x`.
    pub fn loss(&mut self, x: TensorId, tokens: u64) {
        let work = work_of("loss", OperatorKind::Elementwise, 0.0, Bytes::ZERO);
        self.dag.operator(work, &[x], &[x], &[Bytes(4 * tokens)]);
    }

    /// Gathers a tensor `[tokens, width]` from the devices that share the layer.
    pub fn gather(&mut self, x: TensorId, tokens: u64, width: u64) -> TensorId {
        let writes = self.whole(tokens, width);
        self.collective("gather", x, self.others(tokens, width), writes)
    }

    /// Sums a tensor `[tokens, width]` over the devices that share the layer. Each device keeps its share.
    pub fn scatter(&mut self, x: TensorId, tokens: u64, width: u64) -> TensorId {
        let writes = self.share(tokens, width);
        self.collective("scatter", x, self.others(tokens, width), writes)
    }

    /// The bytes of all other devices' shares.
    fn others(&self, tokens: u64, width: u64) -> Bytes {
        self.whole(tokens, width).saturating_sub(self.share(tokens, width))
    }

    fn collective(
        &mut self,
        name: &'static str,
        x: TensorId,
        network: Bytes,
        writes: Bytes,
    ) -> TensorId {
        if self.devices() == 1 {
            return x;
        }
        let mut work = work_of(name, OperatorKind::Collective, 0.0, Bytes::ZERO);
        work.network = network;
        self.dag.operator(work, &[x], &[], &[writes])[0]
    }
}

fn work_of(name: &'static str, kind: OperatorKind, flops: f64, weights: Bytes) -> Work {
    Work { name, kind, flops: Flops(flops), weights, network: Bytes::ZERO }
}
