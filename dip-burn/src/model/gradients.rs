//! Weight gradients of a chunk, summed over its backwards.

use std::marker::PhantomData;

use burn::module::Param;
use burn::nn::Linear;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::to_f32;

/// A weight gradient that is still to be computed.
type Job = Box<dyn FnOnce(&mut GradientsParams) + Send>;

/// Weight gradients that a backward has left for later, with the inputs and output gradients they need.
#[derive(Default)]
pub struct Deferred(Vec<Job>);

/// Sums of gradients, by parameter; in f32, whatever the layers compute in.
pub struct Gradients<B: Backend> {
    sums: GradientsParams,
    trainable: bool,
    deferred: Option<Deferred>,
    backend: PhantomData<B>,
}

impl<B: Backend> Gradients<B> {
    /// Empty sums. Where the module is not `trainable` nothing is ever added, nor computed.
    pub fn new(trainable: bool) -> Self {
        Self { sums: GradientsParams::new(), trainable, deferred: None, backend: PhantomData }
    }

    /// The sums.
    pub fn sums(&self) -> &GradientsParams {
        &self.sums
    }

    /// Forgets all sums.
    pub fn clear(&mut self) {
        self.sums = GradientsParams::new();
    }

    /// Replaces all sums.
    pub fn replace(&mut self, sums: GradientsParams) {
        self.sums = sums;
    }

    /// From now on gradients are not computed but collected, until [`Gradients::deferred`] takes them.
    pub fn defer(&mut self) {
        self.deferred = Some(Deferred::default());
    }

    /// What was collected since [`Gradients::defer`].
    pub fn deferred(&mut self) -> Deferred {
        self.deferred.take().unwrap_or_default()
    }

    /// Computes what was left for later.
    pub fn run(&mut self, deferred: Deferred) {
        deferred.0.into_iter().for_each(|job| job(&mut self.sums));
    }

    /// Adds to the sum of a parameter, now or later.
    pub fn add<const D: usize>(
        &mut self,
        parameter: &Param<Tensor<B, D>>,
        gradient: impl FnOnce() -> Tensor<B, D> + Send + 'static,
    ) {
        if !self.trainable {
            return;
        }
        let id = parameter.id;
        let job = move |sums: &mut GradientsParams| {
            let gradient = to_f32(gradient());
            let sum = match sums.remove::<B, D>(id) {
                Some(so_far) => so_far + gradient,
                None => gradient,
            };
            sums.register::<B, D>(id, sum);
        };
        match &mut self.deferred {
            Some(deferred) => deferred.0.push(Box::new(job)),
            None => job(&mut self.sums),
        }
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
    let for_weight = dy.clone();
    gradients.add(&layer.weight, move || x.transpose().matmul(for_weight));
    if let Some(bias) = &layer.bias {
        let dy = dy.clone();
        gradients.add(bias, move || to_f32(dy).sum_dim(0).squeeze_dim(0));
    }
}

/// Bytes of a tensor.
pub(super) fn bytes_of<B: Backend, const D: usize>(x: &Tensor<B, D>) -> u64 {
    (x.dtype().size() * x.shape().num_elements()) as u64
}
