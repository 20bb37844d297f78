//! Single passes over f32 tensors of the CPU backend, in place of several or slow operations of Burn.
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
//! Each caller asks [`runs`], and falls back to Burn's operations for other backends and precisions; tests compare the two.

mod heads;
mod lanes;
mod norm;
mod pointwise;
mod product;
mod softmax;
#[cfg(test)]
mod tests;

use std::any::{Any, TypeId};

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData, TensorPrimitive};
use burn_flex::FlexTensor;
use rayon::prelude::*;

pub(in crate::model) use heads::{joined_heads, split_heads};
pub(in crate::model) use norm::{affine, product_sums, standardised, standardised_backward};
pub(in crate::model) use pointwise::{
    gated, gated_backward, gelu, gelu_backward, rotated, rotated_neighbours,
};
pub(in crate::model) use product::product;
pub(in crate::model) use softmax::{softmax, softmax_backward};

/// Fewest values that are worth more than one compute thread.
const MIN_PARALLEL_VALUES: usize = 1 << 16;

/// True if the passes of this module run on `x`.
pub(in crate::model) fn runs<B: Backend, const D: usize>(x: &Tensor<B, D>) -> bool {
    TypeId::of::<B::FloatTensorPrimitive>() == TypeId::of::<FlexTensor>() && x.dtype() == DType::F32
}

/// `x` as a contiguous tensor of the CPU backend. Only for tensors for which [`runs`] is true.
fn values<B: Backend, const D: usize>(x: Tensor<B, D>) -> FlexTensor {
    let x = flex(x);
    let whole = x.as_slice::<f32>().is_some_and(|own| own.len() == x.storage::<f32>().len());
    if whole { x } else { x.to_contiguous() }
}

/// `x` as a tensor of the CPU backend, with its strides. Only for tensors for which [`runs`] is true.
fn flex<B: Backend, const D: usize>(x: Tensor<B, D>) -> FlexTensor {
    converted(x.into_primitive().tensor())
}

/// A tensor from values in row order.
fn tensor<B: Backend, const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<B, D> {
    of_flex(FlexTensor::from_data(TensorData::new(values, shape)))
}

/// The reverse of [`flex`].
fn of_flex<B: Backend, const D: usize>(x: FlexTensor) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(converted(x)))
}

/// Converts `x` between two names of one type: its concrete name, and its name in generic code.
fn converted<X: 'static, Y: 'static>(x: X) -> Y {
    let mut place = Some(x);
    let same = (&mut place as &mut dyn Any).downcast_mut::<Option<Y>>();
    same.and_then(Option::take).expect("the caller has checked that this is the CPU backend")
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
