//! Linear layers, and low-rank adapters on frozen linear layers.
//!
//! Shape legend: r rows, i inputs, o outputs, k inner width of an adapter.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::fused::product;
use crate::model::gradients::Gradients;
use crate::model::to_f32;

/// `y = x W + b`, and with an adapter `+ scale x A B`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[i, o]`
    pub weight: Param<Tensor<B, 2>>,
    /// `[o]`
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// Trained instead of the weights.
    pub lora: Option<Adapter<B>>,
}

/// Two matrices whose product is added to frozen weights.
#[derive(Module, Debug)]
pub struct Adapter<B: Backend> {
    /// `[i, k]`
    pub a: Param<Tensor<B, 2>>,
    /// `[k, o]`, zero at first, so that training starts from the frozen weights.
    pub b: Param<Tensor<B, 2>>,
    /// Factor of their product.
    pub scale: f64,
}

impl<B: Backend> Linear<B> {
    /// `[r, i]` to `[r, o]`.
    pub fn forward(&self, x_ri: Tensor<B, 2>) -> Tensor<B, 2> {
        let bias = self.bias.as_ref().map(Param::val);
        match &self.lora {
            None => product(x_ri, self.weight.val(), bias),
            Some(lora) => product(x_ri.clone(), self.weight.val(), bias) + lora.forward(x_ri),
        }
    }
}

impl<B: Backend> Adapter<B> {
    fn forward(&self, x_ri: Tensor<B, 2>) -> Tensor<B, 2> {
        x_ri.matmul(self.a.val()).matmul(self.b.val()) * self.scale
    }

    /// Adds the gradients of both matrices and returns the gradient of the inner values, `[r, k]`.
    fn backward(
        &self,
        x_ri: Tensor<B, 2>,
        dy: &Tensor<B, 2>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let dy = dy.clone() * self.scale;
        let d_rk = dy.clone().matmul(self.b.val().transpose());
        let (a, x, d) = (self.a.val(), x_ri.clone(), d_rk.clone());
        gradients.add(&self.b, move || x.matmul(a).transpose().matmul(dy));
        gradients.add(&self.a, move || x_ri.transpose().matmul(d));
        d_rk
    }
}

/// Backward of [`Linear::forward`]: adds the gradients of the trained parameters and returns the gradient of `x`.
pub fn linear_backward<B: Backend>(
    layer: &Linear<B>,
    x: Tensor<B, 2>,
    dy: Tensor<B, 2>,
    gradients: &mut Gradients<B>,
) -> Tensor<B, 2> {
    let inner = linear_backward_weights(layer, x, &dy, gradients);
    let dx = product(dy, layer.weight.val().transpose(), None);
    match (&layer.lora, inner) {
        (Some(lora), Some(d_rk)) => dx + d_rk.matmul(lora.a.val().transpose()),
        _ => dx,
    }
}

/// As [`linear_backward`], without the gradient of `x`; returns the gradient of the inner values of an adapter.
pub fn linear_backward_weights<B: Backend>(
    layer: &Linear<B>,
    x: Tensor<B, 2>,
    dy: &Tensor<B, 2>,
    gradients: &mut Gradients<B>,
) -> Option<Tensor<B, 2>> {
    if let Some(lora) = &layer.lora {
        return Some(lora.backward(x, dy, gradients));
    }
    let for_weight = dy.clone();
    gradients.add(&layer.weight, move || product(x.transpose(), for_weight, None));
    if let Some(bias) = &layer.bias {
        let dy = dy.clone();
        gradients.add(bias, move || to_f32(dy).sum_dim(0).squeeze_dim(0));
    }
    None
}
