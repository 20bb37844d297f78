//! Activations and their derivatives.

use std::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, sigmoid, tanh};
use burn::tensor::backend::Backend;
use dip_core::Activation;

use super::fused;

/// `1 / sqrt(2 pi)`
const BELL: f64 = 0.398_942_280_401_432_7;
/// Slope of the sigmoid in QuickGELU.
const QUICK: f64 = 1.702;
/// `sqrt(2 / pi)` and the weight of the cube in the approximation by a hyperbolic tangent.
const TANH: f64 = 0.797_884_560_802_865_4;
const CUBE: f64 = 0.044_715;

/// `x` after the activation.
pub(in crate::model) fn activate<B: Backend>(
    activation: Activation,
    x: Tensor<B, 2>,
) -> Tensor<B, 2> {
    match activation {
        Activation::Gelu if fused::runs(&x) => fused::gelu(x),
        Activation::Gelu => gelu(x),
        Activation::QuickGelu => x.clone() * sigmoid(x * QUICK),
        Activation::GeluTanh => x.clone() * (bend(x) + 1.0) * 0.5,
    }
}

/// The gradient of `x` where `y = activate(x)`.
pub(in crate::model) fn activate_backward<B: Backend>(
    activation: Activation,
    x: Tensor<B, 2>,
    dy: Tensor<B, 2>,
) -> Tensor<B, 2> {
    match activation {
        Activation::Gelu if fused::runs(&x) && fused::runs(&dy) => fused::gelu_backward(x, dy),
        Activation::Gelu => {
            // Burn's own backward, which most backends use, differentiates an approximation of GELU.
            let below = ((x.clone() * FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
            let bell = (x.clone().square() * -0.5).exp() * BELL;
            dy * (below + x * bell)
        }
        Activation::QuickGelu => {
            let open = sigmoid(x.clone() * QUICK);
            // s + q x s (1 - s)
            let slope = open.clone() + x * open.clone() * (-open + 1.0) * QUICK;
            dy * slope
        }
        Activation::GeluTanh => {
            let bend = bend(x.clone());
            // (1 + t) / 2 + x / 2 (1 - t^2) sqrt(2 / pi) (1 + 3 c x^2)
            let inner = (x.clone().square() * (3.0 * CUBE) + 1.0) * TANH;
            let slope = (bend.clone() + 1.0 + x * (-bend.square() + 1.0) * inner) * 0.5;
            dy * slope
        }
    }
}

/// `silu(gate) * up`
pub(in crate::model) fn gated<B: Backend>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    if fused::runs(&gate) && fused::runs(&up) {
        return fused::gated(gate, up);
    }
    gate.clone() * sigmoid(gate) * up
}

/// The gradients of `gate` and `up` from the gradient of [`gated`].
pub(in crate::model) fn gated_backward<B: Backend>(
    gate: Tensor<B, 2>,
    up: Tensor<B, 2>,
    dy: Tensor<B, 2>,
) -> [Tensor<B, 2>; 2] {
    if fused::runs(&gate) && fused::runs(&up) && fused::runs(&dy) {
        return fused::gated_backward(gate, up, dy);
    }
    let d_up = dy.clone() * gate.clone() * sigmoid(gate.clone());
    [silu_backward(gate, dy * up), d_up]
}

/// The gradient of `x` where `y = silu(x)`.
pub(in crate::model) fn silu_backward<B: Backend>(
    x: Tensor<B, 2>,
    dy: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let open = sigmoid(x.clone());
    dy * (open.clone() + x * open.clone() * (-open + 1.0))
}

/// `tanh(sqrt(2 / pi) (x + c x^3))`
fn bend<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    tanh((x.clone() + x.clone().square() * x * CUBE) * TANH)
}
