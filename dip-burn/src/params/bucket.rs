//! Gradients and parameters of a chunk as flat tensors, in an order that all replicas share.

use burn::module::{ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::{AnyModule, ParameterMap};

/// Flat tensors `[numel]`, one for each parameter of a chunk. `None` for a parameter without a gradient.
pub type Bucket<B> = Vec<Option<Tensor<B, 1>>>;

/// The gradient of every parameter of a module.
pub(crate) fn flat_gradients<B: Backend>(
    module: &dyn AnyModule<B>,
    gradients: &GradientsParams,
) -> Bucket<B> {
    let mut visitor = FlattenGradients { gradients, bucket: Bucket::new() };
    module.visit(&mut visitor);
    visitor.bucket
}

/// The number of elements of every entry of [`flat_gradients`].
pub(crate) fn flat_lengths<B: Backend>(module: &dyn AnyModule<B>) -> Vec<usize> {
    let mut visitor = CountElements(Vec::new());
    module.visit(&mut visitor);
    visitor.0
}

struct CountElements(Vec<usize>);

impl<B: Backend> ModuleVisitor<B> for CountElements {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.push(param.lazy_shape().num_elements());
    }
}

/// The gradients of a bucket in the shapes of their parameters.
pub(crate) fn shaped_gradients<B: Backend>(
    module: &dyn AnyModule<B>,
    bucket: Bucket<B>,
) -> GradientsParams {
    let mut visitor =
        ShapeGradients { bucket: bucket.into_iter(), gradients: GradientsParams::new() };
    module.visit(&mut visitor);
    visitor.gradients
}

struct FlattenGradients<'a, B: Backend> {
    gradients: &'a GradientsParams,
    bucket: Bucket<B>,
}

impl<B: Backend> ModuleVisitor<B> for FlattenGradients<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let gradient = self.gradients.get::<B, D>(param.id);
        self.bucket.push(gradient.map(|g| g.flatten(0, D - 1)));
    }
}

struct ShapeGradients<B: Backend> {
    bucket: std::vec::IntoIter<Option<Tensor<B, 1>>>,
    gradients: GradientsParams,
}

impl<B: Backend> ModuleVisitor<B> for ShapeGradients<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.bucket.next().flatten() {
            let shaped = gradient.reshape(param.val().dims());
            self.gradients.register::<B, D>(param.id, shaped);
        }
    }
}

/// Copies the parameters whose names `select` accepts into a bucket. Changes no parameter.
pub(crate) struct ReadParameters<B: Backend, F> {
    pub select: F,
    pub bucket: Bucket<B>,
}

impl<B: Backend, F: Fn(&str) -> bool> ParameterMap<B> for ReadParameters<B, F> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<B, D>,
        _: Option<Tensor<B, D>>,
    ) -> Tensor<B, D> {
        let flat = (self.select)(name).then(|| parameter.clone().flatten(0, D - 1));
        self.bucket.push(flat);
        parameter
    }
}

/// Replaces the parameters by the tensors of a bucket.
pub(crate) struct WriteParameters<B: Backend>(pub std::vec::IntoIter<Option<Tensor<B, 1>>>);

impl<B: Backend> ParameterMap<B> for WriteParameters<B> {
    fn map<const D: usize>(
        &mut self,
        _: &str,
        parameter: Tensor<B, D>,
        _: Option<Tensor<B, D>>,
    ) -> Tensor<B, D> {
        match self.0.next().flatten() {
            Some(flat) => flat.reshape(parameter.dims()),
            None => parameter,
        }
    }
}
