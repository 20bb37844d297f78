//! Root-mean-square norm, and layer norm, which also centres its rows.
//!
//! Shape legend: r rows, m width.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{ModuleSpec, NormKind, VitSpec};

use super::fused;
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::offload::{KeptTensors, TensorVisitor};
use crate::model::{Init, cast, to_f32};

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
        if fused::runs(&x_rm) {
            let [unit, scale] = fused::standardised(x_rm, self.centred, self.epsilon);
            let kept = NormKept { unit, scale };
            return (self.output(&kept), kept);
        }
        let dtype = x_rm.dtype();
        let x_rm = to_f32(x_rm);
        let centred = if self.centred { x_rm.clone() - x_rm.mean_dim(1) } else { x_rm };
        let variance = centred.clone().square().mean_dim(1);
        let scale = (variance + self.epsilon).sqrt().recip();
        let kept = NormKept { unit: cast(centred * scale.clone(), dtype), scale };
        (self.output(&kept), kept)
    }

    /// Recomputes the result of the forward.
    pub(in crate::model) fn output(&self, kept: &NormKept<B>) -> Tensor<B, 2> {
        let Some(gamma) = self.gamma.as_ref().map(Param::val) else { return kept.unit.clone() };
        if fused::runs(&kept.unit) && fused::runs(&gamma) {
            return fused::affine(kept.unit.clone(), gamma, self.beta.as_ref().map(Param::val));
        }
        let y = kept.unit.clone() * gamma.unsqueeze();
        match &self.beta {
            Some(beta) => y + beta.val().unsqueeze(),
            None => y,
        }
    }

    /// The gradient of the input.
    pub(in crate::model) fn backward(
        &self,
        kept: NormKept<B>,
        dy: Tensor<B, 2>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let NormKept { unit, scale } = kept;
        let dtype = dy.dtype();
        let is_fused = fused::runs(&dy) && fused::runs(&unit);
        let (unit, dy) = (to_f32(unit), to_f32(dy));
        let sum_rows = |x: Tensor<B, 2>| x.sum_dim(0).squeeze_dim(0);
        if let Some(gamma) = &self.gamma {
            let (for_gamma, rows) = (dy.clone(), unit.clone());
            gradients.add(gamma, move || match is_fused {
                true => fused::product_sums(for_gamma, rows),
                false => sum_rows(for_gamma * rows),
            });
        }
        if let Some(beta) = &self.beta {
            let dy = dy.clone();
            gradients.add(beta, move || sum_rows(dy));
        }
        let gamma = self.gamma.as_ref().map(|gamma| to_f32(gamma.val()));
        if is_fused {
            let dx = fused::standardised_backward([unit, scale], gamma, dy, self.centred);
            return cast(dx, dtype);
        }
        let d_unit = match gamma {
            Some(gamma) => dy * gamma.unsqueeze(),
            None => dy,
        };
        let along = (d_unit.clone() * unit.clone()).mean_dim(1);
        let d_unit = if self.centred { d_unit.clone() - d_unit.mean_dim(1) } else { d_unit };
        cast((d_unit - unit * along) * scale, dtype)
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
