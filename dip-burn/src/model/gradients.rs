//! Weight gradients of a chunk, summed over its backwards.

use std::marker::PhantomData;

use burn::module::Param;
use burn::nn::Linear;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Sums of gradients, by parameter.
pub struct Gradients<B: Backend> {
    sums: GradientsParams,
    trainable: bool,
    backend: PhantomData<B>,
}

impl<B: Backend> Gradients<B> {
    /// Empty sums. Where the module is not `trainable` nothing is ever added, nor computed.
    pub fn new(trainable: bool) -> Self {
        Self { sums: GradientsParams::new(), trainable, backend: PhantomData }
    }

    /// The sums.
    pub fn sums(&self) -> &GradientsParams {
        &self.sums
    }

    /// Forgets all sums.
    pub fn clear(&mut self) {
        self.sums = GradientsParams::new();
    }

    /// Adds to the sum of a parameter.
    pub fn add<const D: usize>(
        &mut self,
        parameter: &Param<Tensor<B, D>>,
        gradient: impl FnOnce() -> Tensor<B, D>,
    ) {
        if !self.trainable {
            return;
        }
        let gradient = gradient();
        let sum = match self.sums.remove::<B, D>(parameter.id) {
            Some(so_far) => so_far + gradient,
            None => gradient,
        };
        self.sums.register::<B, D>(parameter.id, sum);
    }
}

/// Backward of `y = x W + b` over rows: adds the gradients of `W` and `b` and returns that of `x`.
pub(super) fn linear_backward<B: Backend>(
    layer: &Linear<B>,
    x: Tensor<B, 2>,
    dy: Tensor<B, 2>,
    gradients: &mut Gradients<B>,
) -> Tensor<B, 2> {
    linear_backward_weights(layer, x, &dy, gradients);
    dy.matmul(layer.weight.val().transpose())
}

/// The part of [`linear_backward`] that needs no gradient of `x`.
pub(super) fn linear_backward_weights<B: Backend>(
    layer: &Linear<B>,
    x: Tensor<B, 2>,
    dy: &Tensor<B, 2>,
    gradients: &mut Gradients<B>,
) {
    gradients.add(&layer.weight, || x.transpose().matmul(dy.clone()));
    if let Some(bias) = &layer.bias {
        gradients.add(bias, || dy.clone().sum_dim(0).squeeze_dim(0));
    }
}

/// Bytes of a tensor.
pub(super) fn bytes_of<B: Backend, const D: usize>(x: &Tensor<B, D>) -> u64 {
    4 * x.shape().num_elements() as u64
}
