//! Tensors side by side in one activation: the residual stream, and features that pass beside it.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The tensors in the columns of `x`, of width `first` for the first and of width `each` for all others.
pub(in crate::model) fn split<B: Backend>(
    x: Tensor<B, 2>,
    first: usize,
    each: usize,
) -> (Tensor<B, 2>, Vec<Tensor<B, 2>>) {
    let [_, width] = x.dims();
    if width == first {
        return (x, Vec::new());
    }
    let others = (first..width).step_by(each).map(|left| x.clone().narrow(1, left, each)).collect();
    (x.narrow(1, 0, first), others)
}

/// Puts `first` and `others` side by side.
pub(in crate::model) fn join<B: Backend>(
    first: Tensor<B, 2>,
    others: Vec<Tensor<B, 2>>,
) -> Tensor<B, 2> {
    match others.is_empty() {
        true => first,
        false => Tensor::cat(std::iter::once(first).chain(others).collect(), 1),
    }
}
