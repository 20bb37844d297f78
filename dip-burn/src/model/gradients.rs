//! Weight gradients of a chunk, summed over its backwards.

use std::collections::HashSet;
use std::marker::PhantomData;

use burn::module::{Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::ModuleSpec;

use super::to_f32;

/// A weight gradient that is still to be computed.
type Job = Box<dyn FnOnce(&mut GradientsParams) + Send>;

/// Deferred weight gradients, with the inputs and output gradients they need.
#[derive(Default)]
pub struct Deferred(Vec<Job>);

/// Sums of gradients, by parameter; in f32 at every precision of the layers.
pub struct Gradients<B: Backend> {
    sums: GradientsParams,
    trains: Trains,
    deferred: Option<Deferred>,
    backend: PhantomData<B>,
}

/// The trained parameters of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trains {
    Nothing,
    All,
    Only(HashSet<ParamId>),
}

impl<B: Backend> Gradients<B> {
    /// Empty sums for all parameters of a module, or for none if it is not trained. Gradients of the rest are neither computed nor
    /// added.
    pub fn of(spec: &ModuleSpec) -> Self {
        let trains = if spec.trainable { Trains::All } else { Trains::Nothing };
        Self { sums: GradientsParams::new(), trains, deferred: None, backend: PhantomData }
    }

    /// The same for only these parameters.
    #[must_use]
    pub fn only(self, trained: HashSet<ParamId>) -> Self {
        Self { trains: Trains::Only(trained), ..self }
    }

    /// The sums.
    pub fn sums(&self) -> &GradientsParams {
        &self.sums
    }

    /// The sum of a matrix; `None` if nothing was added to it.
    pub fn sum_of(&self, parameter: &Param<Tensor<B, 2>>) -> Option<Tensor<B, 2>> {
        self.sums.get::<B, 2>(parameter.id)
    }

    /// Replaces the sum of a matrix.
    pub fn replace_sum_of(&mut self, parameter: &Param<Tensor<B, 2>>, sum: Tensor<B, 2>) {
        self.sums.remove::<B, 2>(parameter.id);
        self.sums.register::<B, 2>(parameter.id, sum);
    }

    /// Forgets all sums.
    pub fn clear(&mut self) {
        self.sums = GradientsParams::new();
    }

    /// Replaces all sums.
    pub fn replace(&mut self, sums: GradientsParams) {
        self.sums = sums;
    }

    /// Starts to collect gradients without computing them, until [`Gradients::deferred`] takes them.
    pub fn defer(&mut self) {
        self.deferred = Some(Deferred::default());
    }

    /// The gradients that were collected since [`Gradients::defer`].
    pub fn deferred(&mut self) -> Deferred {
        self.deferred.take().unwrap_or_default()
    }

    /// Computes deferred gradients.
    pub fn run(&mut self, deferred: Deferred) {
        deferred.0.into_iter().for_each(|job| job(&mut self.sums));
    }

    /// True if gradients are collected without computing them.
    pub fn is_deferring(&self) -> bool {
        self.deferred.is_some()
    }

    /// True if the gradient of a parameter is added.
    pub fn trains<const D: usize>(&self, parameter: &Param<Tensor<B, D>>) -> bool {
        match &self.trains {
            Trains::Nothing => false,
            Trains::All => true,
            Trains::Only(trained) => trained.contains(&parameter.id),
        }
    }

    /// Adds to the sum of a parameter, now or later.
    pub fn add<const D: usize>(
        &mut self,
        parameter: &Param<Tensor<B, D>>,
        gradient: impl FnOnce() -> Tensor<B, D> + Send + 'static,
    ) {
        if self.trains(parameter) {
            self.sum(parameter, gradient);
        }
    }

    fn sum<const D: usize>(
        &mut self,
        parameter: &Param<Tensor<B, D>>,
        gradient: impl FnOnce() -> Tensor<B, D> + Send + 'static,
    ) {
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

/// Bytes of a tensor.
pub fn bytes_of<B: Backend, const D: usize>(x: &Tensor<B, D>) -> u64 {
    (x.dtype().size() * x.shape().num_elements()) as u64
}
