//! Feed-forward networks: gated with SiLU or another activation, or plain with GELU or its relatives.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{Activation, LoraTarget, ModuleSpec};

use super::linear::{Linear, linear_backward};
use crate::kernels::kernels;
use crate::model::Init;
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::init::layer_std;
use crate::model::offload::{KeptTensors, TensorVisitor};

/// Two matrices, or three with a gate.
#[derive(Module, Debug)]
pub struct FeedForward<B: Backend> {
    /// `[m, f]`, only with a gate.
    pub gate: Option<Linear<B>>,
    /// `[m, f]`
    pub up: Linear<B>,
    /// `[f, m]`
    pub down: Linear<B>,
    /// The activation without a gate.
    #[module(skip)]
    activation: Activation,
    /// The activation of the gate; SiLU if absent.
    #[module(skip)]
    gate_activation: Option<Activation>,
}

impl<B: Backend> FeedForward<B> {
    /// The network of layer `path` of a module.
    pub fn init(spec: &ModuleSpec, path: &str, bias: bool, init: &Init<'_, B>) -> Self {
        let (width, ffn) = (spec.hidden as usize, spec.ffn as usize);
        let std = layer_std(spec);
        let residual = std / (2.0 * f64::from(spec.layers)).sqrt();
        let linear = |target: LoraTarget, input, output, std| {
            let path = format!("{path}.feed_forward.{}", target.name());
            init.adapted(spec, target, &path, init.linear(&path, input, output, bias, std))
        };
        Self {
            gate: spec.gated_ffn().then(|| linear(LoraTarget::Gate, width, ffn, std)),
            up: linear(LoraTarget::Up, width, ffn, std),
            down: linear(LoraTarget::Down, ffn, width, residual),
            activation: spec.options.activation,
            gate_activation: spec.options.gate_activation,
        }
    }

    /// `x_rm` to the same shape.
    pub(in crate::model) fn forward(
        &self,
        x_rm: Tensor<B, 2>,
    ) -> (Tensor<B, 2>, FeedForwardKept<B>) {
        let gate = self.gate.as_ref().map(|gate| gate.forward(x_rm.clone()));
        let kept = FeedForwardKept { gate, up: self.up.forward(x_rm) };
        let inner = match &kept.gate {
            Some(gate) => self.gated(gate.clone(), kept.up.clone()),
            None => kernels().activate(self.activation, kept.up.clone()),
        };
        (self.down.forward(inner), kept)
    }

    /// The gradient of `x_rm`.
    pub(in crate::model) fn backward(
        &self,
        x_rm: Tensor<B, 2>,
        kept: FeedForwardKept<B>,
        dy: Tensor<B, 2>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let FeedForwardKept { gate, up } = kept;
        let (Some(gate), Some(gate_layer)) = (gate, &self.gate) else {
            let inner = kernels().activate(self.activation, up.clone());
            let d_inner = linear_backward(&self.down, inner, dy, gradients);
            let d_up = kernels().activate_backward(self.activation, up, d_inner);
            return linear_backward(&self.up, x_rm, d_up, gradients);
        };
        let inner = self.gated(gate.clone(), up.clone());
        let d_inner = linear_backward(&self.down, inner, dy, gradients);
        let [d_gate, d_up] = self.gated_backward(gate, up, d_inner);
        linear_backward(gate_layer, x_rm.clone(), d_gate, gradients)
            + linear_backward(&self.up, x_rm, d_up, gradients)
    }

    fn gated(&self, gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.gate_activation {
            None => kernels().gated(gate, up),
            Some(activation) => kernels().activate(activation, gate) * up,
        }
    }

    fn gated_backward(
        &self,
        gate: Tensor<B, 2>,
        up: Tensor<B, 2>,
        dy: Tensor<B, 2>,
    ) -> [Tensor<B, 2>; 2] {
        let Some(activation) = self.gate_activation else {
            return kernels().gated_backward(gate, up, dy);
        };
        let d_up = dy.clone() * kernels().activate(activation, gate.clone());
        [kernels().activate_backward(activation, gate, dy * up), d_up]
    }
}

/// The state that the backward needs: the inner values before their activation.
#[derive(Debug, Clone)]
pub(in crate::model) struct FeedForwardKept<B: Backend> {
    gate: Option<Tensor<B, 2>>,
    up: Tensor<B, 2>,
}

impl<B: Backend> KeptTensors<B> for FeedForwardKept<B> {
    fn each<V: TensorVisitor<B>>(&mut self, visit: &mut V) {
        self.gate.iter_mut().for_each(|gate| visit.tensor(gate));
        visit.tensor(&mut self.up);
    }
}

impl<B: Backend> FeedForwardKept<B> {
    pub(in crate::model) fn bytes(&self) -> u64 {
        bytes_of(&self.up) + self.gate.as_ref().map_or(0, bytes_of)
    }
}
