//! Feed-forward networks: gated with SiLU in decoders, plain with GELU in encoders.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, silu};
use burn::tensor::backend::Backend;
use dip_core::ModuleSpec;

use super::Init;

/// Two matrices, or three where there is a gate.
#[derive(Module, Debug)]
pub struct FeedForward<B: Backend> {
    /// `[m, f]`, only where gated.
    pub gate: Option<Linear<B>>,
    /// `[m, f]`
    pub up: Linear<B>,
    /// `[f, m]`
    pub down: Linear<B>,
}

impl<B: Backend> FeedForward<B> {
    /// The network of layer `path` of a module.
    pub fn init(spec: &ModuleSpec, path: &str, bias: bool, init: &Init<'_, B>) -> Self {
        let (width, ffn) = (spec.hidden as usize, spec.ffn as usize);
        let std = 0.02;
        let residual = std / (2.0 * f64::from(spec.layers)).sqrt();
        let linear = |name: &str, input, output, std| {
            init.linear(&format!("{path}.feed_forward.{name}"), input, output, bias, std)
        };
        Self {
            gate: spec.gated_ffn().then(|| linear("gate", width, ffn, std)),
            up: linear("up", width, ffn, std),
            down: linear("down", ffn, width, residual),
        }
    }

    /// `x_rm` to the same shape.
    pub fn forward(&self, x_rm: Tensor<B, 2>) -> Tensor<B, 2> {
        let inner = match &self.gate {
            Some(gate) => silu(gate.forward(x_rm.clone())) * self.up.forward(x_rm),
            None => gelu(self.up.forward(x_rm)),
        };
        self.down.forward(inner)
    }
}
