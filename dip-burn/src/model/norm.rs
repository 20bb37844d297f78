//! Root-mean-square norm, and layer norm where there is a shift.
//!
//! Shape legend: r rows, m width.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::gradients::{Gradients, bytes_of};
use super::{Init, cast, to_f32};

/// Added to the variance where nothing else is said.
const EPSILON: f64 = 1e-6;

/// Scales every row to unit variance, and by `gamma`; a layer norm also centres it and adds `beta`.
#[derive(Module, Debug)]
pub struct Norm<B: Backend> {
    /// `[m]`
    pub gamma: Param<Tensor<B, 1>>,
    /// `[m]`, only in a layer norm.
    pub beta: Option<Param<Tensor<B, 1>>>,
    /// Added to the variance.
    pub epsilon: f64,
}

/// What the backward needs.
#[derive(Debug, Clone)]
pub(crate) struct NormKept<B: Backend> {
    /// The rows at unit variance, `[r, m]`.
    unit: Tensor<B, 2>,
    /// What they were multiplied with, `[r, 1]`, in f32.
    scale: Tensor<B, 2>,
}

impl<B: Backend> Norm<B> {
    /// A root-mean-square norm.
    pub fn rms(width: usize, init: &Init<'_, B>) -> Self {
        Self { gamma: init.constant(1.0, width), beta: None, epsilon: EPSILON }
    }

    /// A layer norm.
    pub fn layer(width: usize, init: &Init<'_, B>) -> Self {
        let beta = Some(init.constant(0.0, width));
        Self { gamma: init.constant(1.0, width), beta, epsilon: EPSILON }
    }

    /// The same norm with another epsilon.
    #[must_use]
    pub fn with_epsilon(self, epsilon: f64) -> Self {
        Self { epsilon, ..self }
    }

    /// `x_rm` to the same shape.
    pub(crate) fn forward(&self, x_rm: Tensor<B, 2>) -> (Tensor<B, 2>, NormKept<B>) {
        let dtype = x_rm.dtype();
        let x_rm = to_f32(x_rm);
        let centred = match &self.beta {
            Some(_) => x_rm.clone() - x_rm.mean_dim(1),
            None => x_rm,
        };
        let variance = centred.clone().square().mean_dim(1);
        let scale = (variance + self.epsilon).sqrt().recip();
        let kept = NormKept { unit: cast(centred * scale.clone(), dtype), scale };
        (self.output(&kept), kept)
    }

    /// The result of the forward again.
    pub(super) fn output(&self, kept: &NormKept<B>) -> Tensor<B, 2> {
        let y = kept.unit.clone() * self.gamma.val().unsqueeze();
        match &self.beta {
            Some(beta) => y + beta.val().unsqueeze(),
            None => y,
        }
    }

    /// The gradient of the input.
    pub(super) fn backward(
        &self,
        kept: NormKept<B>,
        dy: Tensor<B, 2>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let NormKept { unit, scale } = kept;
        let dtype = dy.dtype();
        let (unit, dy) = (to_f32(unit), to_f32(dy));
        let sum_rows = |x: Tensor<B, 2>| x.sum_dim(0).squeeze_dim(0);
        let (for_gamma, rows) = (dy.clone(), unit.clone());
        gradients.add(&self.gamma, move || sum_rows(for_gamma * rows));
        if let Some(beta) = &self.beta {
            let dy = dy.clone();
            gradients.add(beta, move || sum_rows(dy));
        }
        let d_unit = dy * to_f32(self.gamma.val()).unsqueeze();
        let along = (d_unit.clone() * unit.clone()).mean_dim(1);
        let d_unit = match &self.beta {
            Some(_) => d_unit.clone() - d_unit.mean_dim(1),
            None => d_unit,
        };
        cast((d_unit - unit * along) * scale, dtype)
    }
}

impl<B: Backend> NormKept<B> {
    pub(super) fn bytes(&self) -> u64 {
        bytes_of(&self.unit) + bytes_of(&self.scale)
    }
}
