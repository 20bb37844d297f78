//! Linear layers, and low-rank adapters on frozen linear layers.
//!
//! Shape legend: r rows, i inputs, o outputs, k inner width of an adapter.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::kernels::kernels;
use crate::model::gradients::Gradients;
use crate::model::{cast, to_f32};

/// `y = x W + b`, and with an adapter `+ scale x A B`. With a magnitude m, `y = x V m / |V| + b` for `V = W + scale A B`, where `|V|` is
/// the norm of each column.
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
    /// `[o]`, the norm of the frozen weights of each output at first.
    pub magnitude: Option<Param<Tensor<B, 1>>>,
}

impl<B: Backend> Linear<B> {
    /// `[r, i]` to `[r, o]`.
    pub fn forward(&self, x_ri: Tensor<B, 2>) -> Tensor<B, 2> {
        let bias = self.bias.as_ref().map(Param::val);
        match &self.lora {
            None => kernels().product(x_ri, self.weight.val(), bias),
            Some(Adapter { magnitude: None, .. }) => self.direction(x_ri, bias),
            Some(lora) => {
                let (factor, _) = lora.column_factors(&self.weight.val());
                let y = self.direction(x_ri, None);
                let y = y.clone() * cast(factor, y.dtype());
                match bias {
                    Some(bias) => y + bias.unsqueeze(),
                    None => y,
                }
            }
        }
    }

    /// The product with the weights and their adapter, without its magnitude.
    fn direction(&self, x_ri: Tensor<B, 2>, bias: Option<Tensor<B, 1>>) -> Tensor<B, 2> {
        let y = kernels().product(x_ri.clone(), self.weight.val(), bias);
        match &self.lora {
            Some(lora) => y + lora.forward(x_ri),
            None => y,
        }
    }
}

/// `x w`
fn product<B: Backend>(x: Tensor<B, 2>, w: Tensor<B, 2>) -> Tensor<B, 2> {
    kernels().product(x, w, None)
}

/// The norm of every column of a matrix, `[o]`, in f32.
pub fn output_norms<B: Backend>(weight_io: Tensor<B, 2>) -> Tensor<B, 1> {
    to_f32(weight_io).square().sum_dim(0).sqrt().squeeze_dim(0)
}

impl<B: Backend> Adapter<B> {
    fn forward(&self, x_ri: Tensor<B, 2>) -> Tensor<B, 2> {
        product(product(x_ri, self.a.val()), self.b.val()) * self.scale
    }

    /// The factor of every output and the norm of its weights, `[1, o]`, in f32. The norm counts as a constant.
    fn column_factors(&self, weight_io: &Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let merged = weight_io.clone() + self.a.val().matmul(self.b.val()) * self.scale;
        let norm = output_norms(merged.detach()).unsqueeze::<2>().clamp_min(f32::MIN_POSITIVE);
        let magnitude = self.magnitude.as_ref().map(|m| to_f32(m.val()).unsqueeze::<2>());
        let factor = magnitude.map_or_else(|| norm.ones_like(), |m| m / norm.clone());
        (factor, norm)
    }

    /// Adds the gradients of both matrices and returns the gradient of the inner values, `[r, k]`.
    fn backward(
        &self,
        x_ri: Tensor<B, 2>,
        dy: &Tensor<B, 2>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let dy = dy.clone() * self.scale;
        let d_rk = product(dy.clone(), self.b.val().transpose());
        let (a, x, d) = (self.a.val(), x_ri.clone(), d_rk.clone());
        gradients.add(&self.b, move || product(product(x, a).transpose(), dy));
        gradients.add(&self.a, move || product(x_ri.transpose(), d));
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
    let dy = direction_backward(layer, &x, dy, gradients);
    let inner = weights_backward(layer, x, &dy, gradients);
    let dx = product(dy, layer.weight.val().transpose());
    match (&layer.lora, inner) {
        (Some(lora), Some(d_rk)) => dx + product(d_rk, lora.a.val().transpose()),
        _ => dx,
    }
}

/// As [`linear_backward`], without the gradient of `x`.
pub fn linear_backward_weights<B: Backend>(
    layer: &Linear<B>,
    x: Tensor<B, 2>,
    dy: &Tensor<B, 2>,
    gradients: &mut Gradients<B>,
) {
    let dy = direction_backward(layer, &x, dy.clone(), gradients);
    weights_backward(layer, x, &dy, gradients);
}

/// The gradient of the product before the magnitude of an adapter; adds the gradient of the magnitude.
fn direction_backward<B: Backend>(
    layer: &Linear<B>,
    x: &Tensor<B, 2>,
    dy: Tensor<B, 2>,
    gradients: &mut Gradients<B>,
) -> Tensor<B, 2> {
    let Some((lora, magnitude)) =
        layer.lora.as_ref().and_then(|l| Some((l, l.magnitude.as_ref()?)))
    else {
        return dy;
    };
    let (factor, norm) = lora.column_factors(&layer.weight.val());
    let (y, d) = (layer.direction(x.clone(), None), dy.clone());
    gradients.add(magnitude, move || ((to_f32(y) * to_f32(d)).sum_dim(0) / norm).squeeze_dim(0));
    let dtype = dy.dtype();
    dy * cast(factor, dtype)
}

/// Adds the gradients of the weights, or of the matrices of an adapter; returns the gradient of the inner values of an adapter.
fn weights_backward<B: Backend>(
    layer: &Linear<B>,
    x: Tensor<B, 2>,
    dy: &Tensor<B, 2>,
    gradients: &mut Gradients<B>,
) -> Option<Tensor<B, 2>> {
    if let Some(lora) = &layer.lora {
        return Some(lora.backward(x, dy, gradients));
    }
    let for_weight = dy.clone();
    gradients.add(&layer.weight, move || product(x.transpose(), for_weight));
    if let Some(bias) = &layer.bias {
        let dy = dy.clone();
        gradients.add(bias, move || kernels().row_sums(dy));
    }
    None
}
