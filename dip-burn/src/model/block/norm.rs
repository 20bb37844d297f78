//! Root-mean-square norm, and layer norm, which also centres its rows.
//!
//! Shape legend: r rows, m width.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{ModuleSpec, NormKind, VitSpec};

use crate::kernels::kernels;
use crate::model::Init;
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::offload::{KeptTensors, TensorVisitor};

/// Added to the variance by default.
const EPSILON: f64 = 1e-6;

/// Scales every row to unit variance, and by `gamma`; a layer norm also centres it and adds `beta`.
#[derive(Module, Debug)]
pub struct Norm<B: Backend> {
    /// `[m]`, absent in a norm without weights.
    pub gamma: Option<Param<Tensor<B, 1>>>,
    /// `[m]`, only in a layer norm with weights.
    pub beta: Option<Param<Tensor<B, 1>>>,
    /// True in a layer norm.
    centred: bool,
    /// Added to the variance.
    pub epsilon: f64,
}

/// The state that the backward needs.
#[derive(Debug, Clone)]
pub(crate) struct NormKept<B: Backend> {
    /// The rows at unit variance, `[r, m]`.
    unit: Tensor<B, 2>,
    /// The factor of each row, `[r, 1]`, in f32.
    scale: Tensor<B, 2>,
}

impl<B: Backend> Norm<B> {
    /// A root-mean-square norm.
    pub fn rms(width: usize, init: &Init<'_, B>) -> Self {
        let gamma = Some(init.constant(1.0, width));
        Self { gamma, beta: None, centred: false, epsilon: EPSILON }
    }

    /// A layer norm.
    pub fn layer(width: usize, init: &Init<'_, B>) -> Self {
        let (gamma, beta) = (init.constant(1.0, width), init.constant(0.0, width));
        Self { gamma: Some(gamma), beta: Some(beta), centred: true, epsilon: EPSILON }
    }

    /// A layer norm without weights.
    pub fn layer_without_weights() -> Self {
        Self { gamma: None, beta: None, centred: true, epsilon: EPSILON }
    }

    /// The norm of a vision encoder: of its kind, with the epsilon of the module.
    pub fn of_encoder(spec: &ModuleSpec, width: usize, init: &Init<'_, B>) -> Self {
        let kind = spec.kind.get::<VitSpec>().map_or(NormKind::Layer, |vit| vit.norm);
        let norm = match kind {
            NormKind::Layer => Self::layer(width, init),
            NormKind::Rms => Self::rms(width, init),
        };
        norm.with_epsilon(spec.options.norm_epsilon)
    }

    /// The same norm with another epsilon.
    #[must_use]
    pub fn with_epsilon(self, epsilon: f64) -> Self {
        Self { epsilon, ..self }
    }

    /// `x_rm` to the same shape.
    pub(crate) fn forward(&self, x_rm: Tensor<B, 2>) -> (Tensor<B, 2>, NormKept<B>) {
        let [unit, scale] = kernels().standardised(x_rm, self.centred, self.epsilon);
        let kept = NormKept { unit, scale };
        (self.output(&kept), kept)
    }

    /// Recomputes the result of the forward.
    pub(in crate::model) fn output(&self, kept: &NormKept<B>) -> Tensor<B, 2> {
        let Some(gamma) = self.gamma.as_ref().map(Param::val) else { return kept.unit.clone() };
        kernels().affine(kept.unit.clone(), gamma, self.beta.as_ref().map(Param::val))
    }

    /// The gradient of the input.
    pub(in crate::model) fn backward(
        &self,
        kept: NormKept<B>,
        dy: Tensor<B, 2>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let NormKept { unit, scale } = kept;
        if let Some(gamma) = &self.gamma {
            let (dy, unit) = (dy.clone(), unit.clone());
            gradients.add(gamma, move || kernels().product_sums(dy, unit));
        }
        if let Some(beta) = &self.beta {
            let dy = dy.clone();
            gradients.add(beta, move || kernels().row_sums(dy));
        }
        let gamma = self.gamma.as_ref().map(Param::val);
        kernels().standardised_backward([unit, scale], gamma, dy, self.centred)
    }
}

impl<B: Backend> KeptTensors<B> for NormKept<B> {
    fn each<V: TensorVisitor<B>>(&mut self, visit: &mut V) {
        visit.tensor(&mut self.unit);
        visit.tensor(&mut self.scale);
    }
}

impl<B: Backend> NormKept<B> {
    pub(in crate::model) fn bytes(&self) -> u64 {
        bytes_of(&self.unit) + bytes_of(&self.scale)
    }
}
