//! Grouped-query attention with rotary positions.
//!
//! Shape legend: b batch, s sequence, m model width, h heads, k key-value heads, g heads of a group (h = k * g), d head width.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::ModuleSpec;

use super::{Init, rotary::Rotary};

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
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// Which pairs of a sequence see each other, as a term of the scores: `[1, 1, s, s]`.
#[derive(Debug, Clone)]
pub struct Mask<B: Backend>(Tensor<B, 4>);

impl<B: Backend> Mask<B> {
    /// Causal attention inside each document of a packed sequence.
    pub fn causal_documents(documents: &[u32], device: &B::Device) -> Self {
        let s = documents.len();
        let mut values = vec![HIDDEN; s * s];
        for i in 0..s {
            for j in (0..=i).rev().take_while(|&j| documents[j] == documents[i]) {
                values[i * s + j] = 0.0;
            }
        }
        Self(Tensor::from_data(TensorData::new(values, [1, 1, s, s]), device))
    }
}

impl<B: Backend> Attention<B> {
    /// The attention of layer `path` of a module; `bias` on query, key and value.
    pub fn init(spec: &ModuleSpec, path: &str, bias: bool, init: &Init<'_, B>) -> Self {
        let (heads, kv_heads) = (spec.heads as usize, spec.kv_heads() as usize);
        let (width, head_dim) = (spec.hidden as usize, spec.head_dim() as usize);
        let std = 0.02;
        let residual = std / (2.0 * f64::from(spec.layers)).sqrt();
        let linear = |name: &str, input, output, bias, std| {
            init.linear(&format!("{path}.attention.{name}"), input, output, bias, std)
        };
        Self {
            query: linear("query", width, heads * head_dim, bias, std),
            key: linear("key", width, kv_heads * head_dim, bias, std),
            value: linear("value", width, kv_heads * head_dim, bias, std),
            output: linear("output", heads * head_dim, width, bias, residual),
            heads,
            kv_heads,
            head_dim,
        }
    }

    /// Attention over `x_bsm`; without a mask every pair sees each other.
    pub fn forward(
        &self,
        x_bsm: Tensor<B, 3>,
        rotary: &Rotary<B>,
        mask: Option<&Mask<B>>,
    ) -> Tensor<B, 3> {
        let [b, s, _] = x_bsm.dims();
        let (h, k, d) = (self.heads, self.kv_heads, self.head_dim);
        let g = h / k;
        let split = |x: Tensor<B, 3>, heads| x.reshape([b, s, heads, d]).swap_dims(1, 2);
        let q_bhsd = rotary.apply(split(self.query.forward(x_bsm.clone()), h));
        let k_bksd = rotary.apply(split(self.key.forward(x_bsm.clone()), k));
        let v_bksd = split(self.value.forward(x_bsm), k);
        // The heads of a group share keys and values: they are rows of one product, and nothing is repeated.
        let q_bkrd = (q_bhsd * (1.0 / (d as f64).sqrt())).reshape([b, k, g * s, d]);
        let scores = q_bkrd.matmul(k_bksd.transpose()).reshape([b, h, s, s]);
        let scores = match mask {
            Some(Mask(mask)) => scores + mask.clone(),
            None => scores,
        };
        let weights = softmax(scores, 3).reshape([b, k, g * s, s]);
        let y_bhsd = weights.matmul(v_bksd).reshape([b, h, s, d]);
        self.output.forward(y_bhsd.swap_dims(1, 2).reshape([b, s, h * d]))
    }
}
