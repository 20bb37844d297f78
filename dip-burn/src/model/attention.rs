//! Grouped-query attention with rotary positions.
//!
//! Shape legend: b batch, s sequence, m model width, h heads, k key-value heads, g heads of a group (h = k * g), d head width.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::ModuleSpec;

use super::Init;
use super::rotary::{Rotary, Turn};
use super::softmax::softmax_rows;

/// Added to the score of a pair that may not see each other.
const HIDDEN: f32 = -1e9;

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
    heads: Heads,
}

/// What the attention layers of a chunk share: positions, and which pairs see each other.
#[derive(Debug, Clone)]
pub struct Geometry<B: Backend> {
    query: Turn<B>,
    key: Turn<B>,
    /// Added to the scores, `[1, k, g * s, s]`; none where every pair sees each other.
    mask: Option<Tensor<B, 4>>,
}

impl<B: Backend> Geometry<B> {
    /// Every pair of a sequence sees each other.
    pub fn full(spec: &Heads, rotary: &Rotary<B>) -> Self {
        let (query, key) = (rotary.of_heads(spec.heads), rotary.of_heads(spec.kv_heads));
        Self { query, key, mask: None }
    }

    /// Causal attention inside each document of a packed sequence.
    pub fn causal_documents(
        spec: &Heads,
        rotary: &Rotary<B>,
        documents: &[u32],
        device: &B::Device,
    ) -> Self {
        let s = documents.len();
        let mut values = vec![HIDDEN; s * s];
        for i in 0..s {
            for j in (0..=i).rev().take_while(|&j| documents[j] == documents[i]) {
                values[i * s + j] = 0.0;
            }
        }
        // Whole for every head, once a chunk: adding a broadcast mask in every layer would be slower.
        let shape = [1, spec.kv_heads, spec.heads / spec.kv_heads * s, s];
        let mask = Tensor::from_data(TensorData::new(values.repeat(spec.heads), shape), device);
        Self { mask: Some(mask), ..Self::full(spec, rotary) }
    }
}

/// Heads of a module.
#[derive(Module, Debug, Clone, Copy)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, each shared by a group of query heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl Heads {
    /// Those of a module.
    pub fn of(spec: &ModuleSpec) -> Self {
        Self {
            heads: spec.heads as usize,
            kv_heads: spec.kv_heads() as usize,
            head_dim: spec.head_dim() as usize,
        }
    }
}

impl<B: Backend> Attention<B> {
    /// The attention of layer `path` of a module; `bias` on query, key and value.
    pub fn init(spec: &ModuleSpec, path: &str, bias: bool, init: &Init<'_, B>) -> Self {
        let heads = Heads::of(spec);
        let width = spec.hidden as usize;
        let (query, key) = (heads.heads * heads.head_dim, heads.kv_heads * heads.head_dim);
        let std = 0.02;
        let residual = std / (2.0 * f64::from(spec.layers)).sqrt();
        let linear = |name: &str, input, output, bias, std| {
            init.linear(&format!("{path}.attention.{name}"), input, output, bias, std)
        };
        Self {
            query: linear("query", width, query, bias, std),
            key: linear("key", width, key, bias, std),
            value: linear("value", width, key, bias, std),
            output: linear("output", query, width, bias, residual),
            heads,
        }
    }

    /// Attention over `x_bsm`.
    pub fn forward(&self, x_bsm: Tensor<B, 3>, geometry: &Geometry<B>) -> Tensor<B, 3> {
        let [b, s, _] = x_bsm.dims();
        let Heads { heads: h, kv_heads: k, head_dim: d } = self.heads;
        let split = |x: Tensor<B, 3>, heads| x.reshape([b, s, heads, d]).swap_dims(1, 2);
        let q = geometry.query.apply(self.query.forward(x_bsm.clone()));
        let k_bksd = split(geometry.key.apply(self.key.forward(x_bsm.clone())), k);
        let v_bksd = split(self.value.forward(x_bsm), k);
        // The heads of a group share keys and values: they are rows of one product, and nothing is repeated.
        let q_bkrd = split(q * (1.0 / (d as f64).sqrt()), h).reshape([b, k, h / k * s, d]);
        let scores_bkrs = q_bkrd.matmul(k_bksd.transpose());
        let scores_bkrs = match &geometry.mask {
            Some(mask) => scores_bkrs + mask.clone(),
            None => scores_bkrs,
        };
        let y_bhsd = softmax_rows(scores_bkrs).matmul(v_bksd).reshape([b, h, s, d]);
        self.output.forward(y_bhsd.swap_dims(1, 2).reshape([b, s, h * d]))
    }
}
