//! The kernels of the CPU backend: single passes over f32 tensors, in place of several or slow operations of Burn.
//!
//! | file | holds |
//! |---|---|
//! | `lanes` | loops at the full vector width of the processor, with exponential and normal distribution |
//! | `product` | products of matrices, in blocks that fit the caches |
//! | `pointwise` | GELU, gated SiLU and rotary rotations |
//! | `softmax` | softmax under a mask |
//! | `norm` | norms |
//! | `heads` | rows of tokens to rows of heads, and back |
//!
//! Other precisions run Burn's operations.

mod heads;
mod lanes;
mod norm;
mod pointwise;
mod product;
mod softmax;

use burn::tensor::{DType, Tensor, TensorData, TensorPrimitive};
use burn_flex::{Flex, FlexTensor};
use dip_core::Activation;
use rayon::prelude::*;

use super::{Kernels, RotaryPairs, RotaryTables, plain};

/// Fewest values that are worth more than one compute thread.
const MIN_PARALLEL_VALUES: usize = 1 << 16;

/// The kernels of the CPU backend.
pub(super) struct CpuKernels;

impl Kernels<Flex> for CpuKernels {
    fn standardised(&self, x_rm: Matrix, centred: bool, epsilon: f64) -> [Matrix; 2] {
        match is_f32(&x_rm) {
            true => norm::standardised(x_rm, centred, epsilon),
            false => plain::standardised(x_rm, centred, epsilon),
        }
    }

    fn affine(&self, unit_rm: Matrix, gamma: Vector, beta: Option<Vector>) -> Matrix {
        match is_f32(&unit_rm) && is_f32(&gamma) {
            true => norm::affine(unit_rm, gamma, beta),
            false => plain::affine(unit_rm, gamma, beta),
        }
    }

    fn standardised_backward(
        &self,
        [unit_rm, scale]: [Matrix; 2],
        gamma: Option<Vector>,
        dy_rm: Matrix,
        centred: bool,
    ) -> Matrix {
        match is_f32(&unit_rm) && is_f32(&dy_rm) && gamma.as_ref().is_none_or(is_f32) {
            true => norm::standardised_backward([unit_rm, scale], gamma, dy_rm, centred),
            false => plain::standardised_backward([unit_rm, scale], gamma, dy_rm, centred),
        }
    }

    fn product_sums(&self, x_rm: Matrix, y_rm: Matrix) -> Vector {
        match is_f32(&x_rm) && is_f32(&y_rm) {
            true => norm::product_sums(x_rm, y_rm),
            false => plain::product_sums(x_rm, y_rm),
        }
    }

    fn activate(&self, activation: Activation, x: Matrix) -> Matrix {
        match activation {
            Activation::Gelu if is_f32(&x) => pointwise::gelu(x),
            _ => plain::activate(activation, x),
        }
    }

    fn activate_backward(&self, activation: Activation, x: Matrix, dy: Matrix) -> Matrix {
        match activation {
            Activation::Gelu if is_f32(&x) && is_f32(&dy) => pointwise::gelu_backward(x, dy),
            _ => plain::activate_backward(activation, x, dy),
        }
    }

    fn gated(&self, gate: Matrix, up: Matrix) -> Matrix {
        match is_f32(&gate) && is_f32(&up) {
            true => pointwise::gated(gate, up),
            false => plain::gated(gate, up),
        }
    }

    fn gated_backward(&self, gate: Matrix, up: Matrix, dy: Matrix) -> [Matrix; 2] {
        match is_f32(&gate) && is_f32(&up) && is_f32(&dy) {
            true => pointwise::gated_backward(gate, up, dy),
            false => plain::gated_backward(gate, up, dy),
        }
    }

    fn rotated(&self, x_rm: Matrix, tables: &RotaryTables<Flex>, back: bool) -> Matrix {
        if !is_f32(&x_rm) || !is_f32(&tables.cos) {
            return plain::rotated(x_rm, tables, back);
        }
        let ([width, _], [_, of_row]) = (tables.swap.dims(), x_rm.dims());
        let tables = tables.of_heads(of_row / width);
        let both = [tables.cos.clone(), tables.sin.clone()];
        match tables.pairs {
            RotaryPairs::Halves => pointwise::rotated(x_rm, both, width, back),
            RotaryPairs::Neighbours => pointwise::rotated_neighbours(x_rm, both, back),
        }
    }

    fn softmax(&self, scores: Scores, mask: Option<&Scores>) -> Scores {
        match is_f32(&scores) {
            true => softmax::softmax(scores, mask),
            false => plain::softmax(scores, mask),
        }
    }

    fn softmax_backward(&self, weights: Scores, d_weights: Scores) -> Scores {
        match is_f32(&weights) && is_f32(&d_weights) {
            true => softmax::softmax_backward(weights, d_weights),
            false => plain::softmax_backward(weights, d_weights),
        }
    }

    fn split_heads(&self, x: &Matrix, start: usize, shape: [usize; 3]) -> Scores {
        match is_f32(x) {
            true => heads::split_heads(x, start, shape),
            false => plain::split_heads(x, start, shape),
        }
    }

    fn joined_heads(&self, x: Scores) -> Matrix {
        match is_f32(&x) {
            true => heads::joined_heads(x),
            false => plain::joined_heads(x),
        }
    }

    fn product(&self, x: Matrix, w: Matrix, bias: Option<Vector>) -> Matrix {
        match is_f32(&x) && is_f32(&w) {
            true => product::product(x, w, bias),
            false => plain::product(x, w, bias),
        }
    }
}

type Vector = Tensor<Flex, 1>;
type Matrix = Tensor<Flex, 2>;
type Scores = Tensor<Flex, 4>;

fn is_f32<const D: usize>(x: &Tensor<Flex, D>) -> bool {
    x.dtype() == DType::F32
}

/// `x`, in f32, as a contiguous tensor of the backend.
fn values<const D: usize>(x: Tensor<Flex, D>) -> FlexTensor {
    let x = flex(x);
    let whole = x.as_slice::<f32>().is_some_and(|own| own.len() == x.storage::<f32>().len());
    if whole { x } else { x.to_contiguous() }
}

/// `x` as a tensor of the backend, with its strides.
fn flex<const D: usize>(x: Tensor<Flex, D>) -> FlexTensor {
    x.into_primitive().tensor()
}

/// A tensor from values in row order.
fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<Flex, D> {
    of_flex(FlexTensor::from_data(TensorData::new(values, shape)))
}

/// The reverse of [`flex`].
fn of_flex<const D: usize>(x: FlexTensor) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

/// Runs `kernel` on parts of `y` in all compute threads. Parts are multiples of `unit` values. `kernel` gets the offset of its
/// part. The values that it writes may depend only on their offset, so that the number of threads does not change the result.
fn in_parts(y: &mut [f32], unit: usize, kernel: impl Fn(usize, &mut [f32]) + Sync) {
    let threads = rayon::current_num_threads();
    if threads == 1 || y.len() < MIN_PARALLEL_VALUES {
        return lanes::vectorised(|| kernel(0, y));
    }
    let part = y.len().div_ceil(threads).next_multiple_of(unit.max(1));
    let parts = y.par_chunks_mut(part).enumerate();
    parts.for_each(|(i, y)| lanes::vectorised(|| kernel(i * part, y)));
}
