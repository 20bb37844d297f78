//! Every kernel in Burn's operations.

use std::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::activation::{gelu, log_softmax, sigmoid, softmax as burn_softmax, tanh};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor};
use dip_core::Activation;

use super::{AdamwStep, AdamwSteps, CrossEntropyGiven, CrossEntropyKept, Kernels, RotaryTables};

/// `1 / sqrt(2 pi)`
const BELL: f64 = 0.398_942_280_401_432_7;
/// Slope of the sigmoid in QuickGELU.
pub(super) const QUICK: f64 = 1.702;
/// `sqrt(2 / pi)` and the weight of the cube in the approximation by a hyperbolic tangent.
pub(super) const TANH: f64 = 0.797_884_560_802_865_4;
pub(super) const CUBE: f64 = 0.044_715;

/// The kernels of backends that have none of their own.
pub(super) struct PlainKernels;

impl<B: Backend> Kernels<B> for PlainKernels {}

/// `x` in the element type `dtype`.
pub(crate) fn cast<B: Backend, const D: usize>(x: Tensor<B, D>, dtype: DType) -> Tensor<B, D> {
    if x.dtype() == dtype { x } else { x.cast(dtype) }
}

/// `x` in f32.
pub(crate) fn to_f32<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    cast(x, DType::F32)
}

pub(super) fn standardised<B: Backend>(
    x_rm: Tensor<B, 2>,
    centred: bool,
    epsilon: f64,
) -> [Tensor<B, 2>; 2] {
    let dtype = x_rm.dtype();
    let x_rm = to_f32(x_rm);
    let centred = if centred { x_rm.clone() - x_rm.mean_dim(1) } else { x_rm };
    let variance = centred.clone().square().mean_dim(1);
    let scale = (variance + epsilon).sqrt().recip();
    [cast(centred * scale.clone(), dtype), scale]
}

pub(super) fn affine<B: Backend>(
    unit_rm: Tensor<B, 2>,
    gamma: Tensor<B, 1>,
    beta: Option<Tensor<B, 1>>,
) -> Tensor<B, 2> {
    let y = unit_rm * gamma.unsqueeze();
    match beta {
        Some(beta) => y + beta.unsqueeze(),
        None => y,
    }
}

pub(super) fn standardised_backward<B: Backend>(
    [unit_rm, scale]: [Tensor<B, 2>; 2],
    gamma: Option<Tensor<B, 1>>,
    dy_rm: Tensor<B, 2>,
    centred: bool,
) -> Tensor<B, 2> {
    let dtype = dy_rm.dtype();
    let (unit, dy) = (to_f32(unit_rm), to_f32(dy_rm));
    let d_unit = match gamma {
        Some(gamma) => dy * to_f32(gamma).unsqueeze(),
        None => dy,
    };
    let along = (d_unit.clone() * unit.clone()).mean_dim(1);
    let d_unit = if centred { d_unit.clone() - d_unit.mean_dim(1) } else { d_unit };
    cast((d_unit - unit * along) * scale, dtype)
}

pub(super) fn product_sums<B: Backend>(x_rm: Tensor<B, 2>, y_rm: Tensor<B, 2>) -> Tensor<B, 1> {
    row_sums(to_f32(x_rm) * to_f32(y_rm))
}

pub(super) fn row_sums<B: Backend>(x_rm: Tensor<B, 2>) -> Tensor<B, 1> {
    to_f32(x_rm).sum_dim(0).squeeze_dim(0)
}

pub(super) fn activate<B: Backend>(activation: Activation, x: Tensor<B, 2>) -> Tensor<B, 2> {
    match activation {
        Activation::Gelu => gelu(x),
        Activation::QuickGelu => x.clone() * sigmoid(x * QUICK),
        Activation::GeluTanh => x.clone() * (bend(x) + 1.0) * 0.5,
    }
}

pub(super) fn activate_backward<B: Backend>(
    activation: Activation,
    x: Tensor<B, 2>,
    dy: Tensor<B, 2>,
) -> Tensor<B, 2> {
    match activation {
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

/// `tanh(sqrt(2 / pi) (x + c x^3))`
fn bend<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    tanh((x.clone() + x.clone().square() * x * CUBE) * TANH)
}

pub(super) fn gated<B: Backend>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    gate.clone() * sigmoid(gate) * up
}

pub(super) fn gated_backward<B: Backend>(
    gate: Tensor<B, 2>,
    up: Tensor<B, 2>,
    dy: Tensor<B, 2>,
) -> [Tensor<B, 2>; 2] {
    let d_up = dy.clone() * gate.clone() * sigmoid(gate.clone());
    [silu_backward(gate, dy * up), d_up]
}

/// The gradient of `x` where `y = silu(x)`.
pub(crate) fn silu_backward<B: Backend>(x: Tensor<B, 2>, dy: Tensor<B, 2>) -> Tensor<B, 2> {
    let open = sigmoid(x.clone());
    dy * (open.clone() + x * open.clone() * (-open + 1.0))
}

/// `x cos + (x R) sin`, where `R` swaps the values of each pair and negates one: all operations are on whole rows, which every
/// backend runs at full speed. The rotation back is the transpose, since both values of a pair share the angle.
pub(super) fn rotated<B: Backend>(
    x_rm: Tensor<B, 2>,
    tables: &RotaryTables<B>,
    back: bool,
) -> Tensor<B, 2> {
    let swap = &tables.swap;
    let ([_, width], [head_dim, _]) = (x_rm.dims(), swap.dims());
    let RotaryTables { cos, sin, .. } = &tables.of_heads(width / head_dim);
    let sin = if back { -sin.clone() } else { sin.clone() };
    let ([d, _], [_, length]) = (swap.dims(), cos.dims());
    let (shape @ [rows, width], dtype) = (x_rm.dims(), x_rm.dtype());
    let x_rm = to_f32(x_rm);
    let sequences = [rows * width / length, length];
    let moved = x_rm.clone().reshape([rows * width / d, d]).matmul(swap.clone());
    let x = x_rm.reshape(sequences) * cos.clone();
    cast((x + moved.reshape(sequences) * sin).reshape(shape), dtype)
}

pub(super) fn softmax<B: Backend>(
    scores: Tensor<B, 4>,
    mask: Option<&Tensor<B, 4>>,
) -> Tensor<B, 4> {
    let dtype = scores.dtype();
    let scores = to_f32(scores);
    let scores = match mask {
        Some(mask) => scores + mask.clone(),
        None => scores,
    };
    cast(burn_softmax(scores, 3), dtype)
}

/// `ds = p * (dp - sum(dp * p))`, row by row.
pub(super) fn softmax_backward<B: Backend>(
    weights: Tensor<B, 4>,
    d_weights: Tensor<B, 4>,
) -> Tensor<B, 4> {
    let dtype = d_weights.dtype();
    let (d_weights, weights) = (to_f32(d_weights), to_f32(weights));
    let sum = (d_weights.clone() * weights.clone()).sum_dim(3);
    cast((d_weights - sum) * weights, dtype)
}

pub(super) fn split_heads<B: Backend>(
    x: &Tensor<B, 2>,
    start: usize,
    [n, s, d]: [usize; 3],
) -> Tensor<B, 4> {
    let [rows, width] = x.dims();
    let own = if n * s == rows { x.clone() } else { x.clone().narrow(0, start, n * s) };
    own.reshape([n, s, width / d, d]).swap_dims(1, 2)
}

pub(super) fn joined_heads<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 2> {
    let [n, h, s, d] = x.dims();
    x.swap_dims(1, 2).reshape([n * s, h * d])
}

pub(super) fn product<B: Backend>(
    x: Tensor<B, 2>,
    w: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 2> {
    burn::tensor::module::linear(x, w, bias)
}

pub(super) fn cross_entropy<B: Backend>(
    logits_rv: Tensor<B, 2>,
    targets_r1: &Tensor<B, 2, Int>,
    z_loss: f64,
) -> (Tensor<B, 2>, CrossEntropyKept<B>) {
    let logits_rv = to_f32(logits_rv);
    let first = |x: &Tensor<B, 2>| x.clone().slice([0..x.dims()[0], 0..1]);
    let logits_r1 = (z_loss > 0.0).then(|| first(&logits_rv));
    let log_p_rv = log_softmax(logits_rv, 1);
    let log_p_r1 = log_p_rv.clone().gather(1, targets_r1.clone());
    let log_z_r1 = logits_r1.map(|logits_r1| logits_r1 - first(&log_p_rv));
    let loss_r1 = match &log_z_r1 {
        Some(log_z_r1) => -log_p_r1 + log_z_r1.clone().square() * z_loss,
        None => -log_p_r1,
    };
    (loss_r1, CrossEntropyKept { values_rv: log_p_rv, log_z_r1 })
}

pub(super) fn cross_entropy_backward<B: Backend>(
    kept: CrossEntropyKept<B>,
    given: CrossEntropyGiven<B>,
) -> Tensor<B, 2> {
    let CrossEntropyKept { values_rv: log_p_rv, log_z_r1 } = kept;
    let CrossEntropyGiven { targets_r1, dy, weight, z_loss, dtype } = given;
    // d loss / d logits = p - 1 at the target, p elsewhere.
    let minus_one = Tensor::full(targets_r1.dims(), -1.0, &dy.device());
    let p_rv = log_p_rv.exp();
    // d log(z)^2 / d logits = 2 log(z) p.
    let p_rv = match log_z_r1 {
        Some(log_z_r1) => p_rv * (log_z_r1 * (2.0 * z_loss) + 1.0),
        None => p_rv,
    };
    let d_rv = p_rv.scatter(1, targets_r1, minus_one, IndexingUpdateOp::Add);
    cast(d_rv * (dy * weight), dtype)
}

/// The column of every target in a part of `columns` columns from `first` on, or any column, and 1 if it lies there, else 0.
fn targets_of_part<B: Backend>(
    targets_r1: &Tensor<B, 2, Int>,
    first: usize,
    columns: usize,
) -> (Tensor<B, 2, Int>, Tensor<B, 2>) {
    let last = columns as i64 - 1;
    let at = targets_r1.clone() - first as i64;
    let inside = at.clone().greater_equal_elem(0).bool_and(at.clone().lower_equal_elem(last));
    let zeros = Tensor::zeros(at.dims(), (&at.device(), DType::F32));
    (at.clamp(0, last), zeros.mask_fill(inside, 1.0))
}

pub(super) fn logit_sums<B: Backend>(
    logits_rc: Tensor<B, 2>,
    targets_r1: &Tensor<B, 2, Int>,
    first: usize,
) -> [Tensor<B, 2>; 2] {
    let (logits_rc, [_, columns]) = (to_f32(logits_rc.clone()), logits_rc.dims());
    let (at, inside_r1) = targets_of_part(targets_r1, first, columns);
    let target_r1 = logits_rc.clone().gather(1, at) * inside_r1;
    let most_r1 = logits_rc.clone().max_dim(1);
    let sum_r1 = (logits_rc - most_r1.clone()).exp().sum_dim(1);
    [sum_r1.log() + most_r1, target_r1]
}

pub(super) fn logit_gradients<B: Backend>(
    logits_rc: Tensor<B, 2>,
    log_z_r1: &Tensor<B, 2>,
    given: &CrossEntropyGiven<B>,
    first: usize,
) -> Tensor<B, 2> {
    let CrossEntropyGiven { targets_r1, dy, weight, z_loss, dtype } = given;
    let (at, inside_r1) = targets_of_part(targets_r1, first, logits_rc.dims()[1]);
    let p_rc = (to_f32(logits_rc) - log_z_r1.clone()).exp();
    let d_rc = match *z_loss > 0.0 {
        true => p_rc * (log_z_r1.clone() * (2.0 * z_loss) + 1.0),
        false => p_rc,
    };
    let d_rc = d_rc.scatter(1, at, -inside_r1, IndexingUpdateOp::Add);
    cast(d_rc * (dy.clone() * *weight), *dtype)
}

/// Steps of AdamW, parameter by parameter.
pub(super) struct PlainAdamw;

impl<B: Backend> AdamwSteps<B> for PlainAdamw {
    fn step(
        &mut self,
        step: &AdamwStep,
        parameter: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        moments: Option<[Tensor<B, 1>; 2]>,
    ) -> (Tensor<B, 1>, [Tensor<B, 1>; 2]) {
        adamw(step, parameter, gradient, moments)
    }

    fn finish(&mut self) {}
}

fn adamw<B: Backend>(
    step: &AdamwStep,
    parameter: Tensor<B, 1>,
    gradient: Tensor<B, 1>,
    moments: Option<[Tensor<B, 1>; 2]>,
) -> (Tensor<B, 1>, [Tensor<B, 1>; 2]) {
    let gradient = match step.gradient_scale {
        1.0 => gradient,
        scale => gradient.mul_scalar(scale as f32),
    };
    let new = [
        gradient.clone().mul_scalar(1.0 - step.beta_1),
        gradient.square().mul_scalar(1.0 - step.beta_2),
    ];
    let [first, second] = match (moments, new) {
        (Some([first, second]), [new_first, new_second]) => [
            first.mul_scalar(step.beta_1).add(new_first),
            second.mul_scalar(step.beta_2).add(new_second),
        ],
        (None, new) => new,
    };
    let [correction_1, correction_2] = step.corrections();
    let root = second.clone().div_scalar(correction_2).sqrt().add_scalar(step.epsilon);
    let delta = first.clone().div_scalar(correction_1).div(root);
    let kept = match step.decay_rate() {
        0.0 => parameter,
        rate => parameter.mul_scalar(1.0 - rate),
    };
    (kept - delta.mul_scalar(step.learning_rate), [first, second])
}

pub(super) fn squares<B: Backend>(tensors: Vec<Tensor<B, 1>>) -> Tensor<B, 1> {
    Tensor::cat(tensors.into_iter().map(|x| x.square().sum()).collect(), 0)
}
