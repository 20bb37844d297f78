//! Softmax over the last dimension, in one step forward and one backward.
//!
//! Burn's autodiff composes the softmax of five operations and keeps what each of them needs; one operation of its own runs the
//! backend's fused forward and keeps the result alone. It is used for the backends of this crate, and the composed one for all
//! others: the values are the same.

use std::any::Any;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};

/// Softmax of every row of `x`, `[.., .., .., s]`.
pub(super) fn softmax_rows<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 4> {
    let done = fused::<B, burn::backend::Flex>(&x);
    #[cfg(feature = "cuda")]
    let done = done.or_else(|| fused::<B, burn::backend::Cuda>(&x));
    done.unwrap_or_else(|| softmax(x, 3))
}

/// The operation of its own, where `B` is autodiff over `Inner`.
fn fused<B: Backend, Inner: Backend>(x: &Tensor<B, 4>) -> Option<Tensor<B, 4>> {
    let x = (x as &dyn Any).downcast_ref::<Tensor<Autodiff<Inner>, 4>>()?;
    let y: Box<dyn Any> = Box::new(tracked(x.clone()));
    y.downcast().ok().map(|y| *y)
}

fn tracked<B: Backend>(x: Tensor<Autodiff<B>, 4>) -> Tensor<Autodiff<B>, 4> {
    let x = x.into_primitive().tensor();
    let y = B::softmax(x.primitive, 3);
    let y = match SoftmaxRows.prepare::<NoCheckpointing>([x.node]).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(y.clone(), y),
        OpsKind::UnTracked(prepared) => prepared.finish(y),
    };
    Tensor::from_primitive(TensorPrimitive::Float(y))
}

#[derive(Debug)]
struct SoftmaxRows;

impl<B: Backend> Backward<B, 1> for SoftmaxRows {
    /// The result.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let dy = tensor::<B>(grads.consume::<B>(&ops.node));
        let Some(parent) = parent else { return };
        // dx = y * (dy - sum(dy * y)), row by row.
        let y = tensor::<B>(ops.state);
        let sum = (dy.clone() * y.clone()).sum_dim(3);
        let dx = (dy - sum) * y;
        grads.register::<B>(parent.id, dx.into_primitive().tensor());
    }
}

fn tensor<B: Backend>(primitive: FloatTensor<B>) -> Tensor<B, 4> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Distribution;

    use super::*;

    type B = Autodiff<Flex>;

    #[test]
    fn the_fused_softmax_has_the_values_and_gradients_of_the_composed_one() {
        let device = Default::default();
        let normal =
            || Tensor::<Flex, 4>::random([2, 3, 4, 5], Distribution::Normal(0.0, 2.0), &device);
        let (x, dy) = (normal(), normal());
        let of = |f: fn(Tensor<B, 4>) -> Tensor<B, 4>| {
            let x = Tensor::<B, 4>::from_inner(x.clone()).require_grad();
            let y = f(x.clone());
            let grads = (y.clone() * Tensor::from_inner(dy.clone())).sum().backward();
            (y.into_data(), x.grad(&grads).unwrap().into_data())
        };
        let (y, dx) = of(softmax_rows);
        let (expected_y, expected_dx) = of(|x| softmax(x, 3));
        let close = burn::tensor::Tolerance::<f32>::absolute(1e-6);
        y.assert_approx_eq(&expected_y, close);
        dx.assert_approx_eq(&expected_dx, close);
    }
}
