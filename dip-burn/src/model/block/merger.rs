//! The adapter at the end of a vision encoder.
//!
//! Shape legend: n images, p patches of an image, m width, t tokens of an image after merging.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{Activation, ModuleSpec};

use super::linear::{Linear, linear_backward};
use super::norm::{Norm, NormKept};
use crate::kernels::kernels;
use crate::model::Init;
use crate::model::gradients::{Gradients, bytes_of};

/// The adapter: each square of neighbouring patches becomes one token of the decoder.
#[derive(Module, Debug)]
pub struct Merger<B: Backend> {
    norm: Option<Norm<B>>,
    fc1: Linear<B>,
    /// None in an adapter of one matrix.
    fc2: Option<Linear<B>>,
    /// Patches that become one token.
    #[module(skip)]
    patches: usize,
    /// True if the norm is over merged patches instead of single ones.
    #[module(skip)]
    is_norm_merged: bool,
}

/// The state that the backward of the adapter needs.
pub(in crate::model) struct MergerKept<B: Backend> {
    input: MergerInput<B>,
    /// Before the activation; none in an adapter of one matrix.
    inner: Option<Tensor<B, 2>>,
}

/// The input of the adapter.
enum MergerInput<B: Backend> {
    Normed(NormKept<B>),
    Plain(Tensor<B, 2>),
}

impl<B: Backend> MergerInput<B> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Normed(norm) => norm.bytes(),
            Self::Plain(x) => bytes_of(x),
        }
    }
}

impl<B: Backend> MergerKept<B> {
    pub(in crate::model) fn bytes(&self) -> u64 {
        self.input.bytes() + self.inner.as_ref().map_or(0, bytes_of)
    }
}

impl<B: Backend> Merger<B> {
    /// The adapter of an encoder, with outputs of width `output`.
    pub fn init(spec: &ModuleSpec, output: usize, init: &Init<'_, B>) -> Self {
        let width = spec.hidden as usize;
        let (merged, inner) = (spec.merged_width() as usize, spec.adapter_width() as usize);
        let norm = || Norm::of_encoder(spec, width, init);
        let (tower, std) = (spec.tower(), (1.0 / merged as f64).sqrt());
        let (fc1, fc2) = match tower.linear_adapter() {
            true => (init.linear("merger.fc1", merged, output, false, std), None),
            false => (
                init.linear("merger.fc1", merged, inner, true, std),
                Some(init.linear("merger.fc2", inner, output, true, 0.02)),
            ),
        };
        Self {
            norm: tower.end_norm().then(norm),
            fc1,
            fc2,
            patches: spec.kind.modality().merged_rows() as usize,
            is_norm_merged: false,
        }
    }

    /// The adapter of feature `number` from inside an encoder, with outputs of width `output` (DeepStack).
    pub fn stacked(spec: &ModuleSpec, number: usize, output: usize, init: &Init<'_, B>) -> Self {
        let (merged, inner) = (spec.merged_width() as usize, spec.adapter_width() as usize);
        let (std, name) = ((1.0 / merged as f64).sqrt(), format!("stacked.{number}"));
        Self {
            norm: Some(Norm::of_encoder(spec, merged, init)),
            fc1: init.linear(&format!("{name}.fc1"), merged, inner, true, std),
            fc2: Some(init.linear(&format!("{name}.fc2"), inner, output, true, 0.02)),
            patches: spec.kind.modality().merged_rows() as usize,
            is_norm_merged: true,
        }
    }

    /// `[n * p, m]` to `[n * t, output]`: the patches of a token side by side, then two linear layers.
    pub(in crate::model) fn forward(&self, x_rm: Tensor<B, 2>) -> (Tensor<B, 2>, MergerKept<B>) {
        let [rows, m] = x_rm.dims();
        let merged = [rows / self.patches, self.patches * m];
        let x_rm = if self.is_norm_merged { x_rm.reshape(merged) } else { x_rm };
        let (x, input) = match &self.norm {
            Some(norm) => {
                let (normed, kept) = norm.forward(x_rm);
                (normed, MergerInput::Normed(kept))
            }
            None => (x_rm.clone(), MergerInput::Plain(x_rm)),
        };
        let inner = self.fc1.forward(x.reshape(merged));
        match &self.fc2 {
            Some(fc2) => {
                let y = fc2.forward(kernels().activate(Activation::Gelu, inner.clone()));
                (y, MergerKept { input, inner: Some(inner) })
            }
            None => (inner, MergerKept { input, inner: None }),
        }
    }

    /// The gradient of `x_rm`.
    pub(in crate::model) fn backward(
        &self,
        kept: MergerKept<B>,
        dy: Tensor<B, 2>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let MergerKept { input, inner } = kept;
        let d_inner = match (&self.fc2, inner) {
            (Some(fc2), Some(inner)) => {
                let active = kernels().activate(Activation::Gelu, inner.clone());
                let d_active = linear_backward(fc2, active, dy, gradients);
                kernels().activate_backward(Activation::Gelu, inner, d_active)
            }
            _ => dy,
        };
        let x = match (&self.norm, &input) {
            (Some(norm), MergerInput::Normed(kept)) => norm.output(kept),
            (_, MergerInput::Plain(x)) => x.clone(),
            (None, MergerInput::Normed(_)) => unreachable!("only a norm keeps normed rows"),
        };
        let shape = x.dims();
        let tokens = d_inner.dims()[0];
        let merged = [tokens, shape[0] * shape[1] / tokens];
        let d = linear_backward(&self.fc1, x.reshape(merged), d_inner, gradients).reshape(shape);
        let d = match (&self.norm, input) {
            (Some(norm), MergerInput::Normed(kept)) => norm.backward(kept, d, gradients),
            _ => d,
        };
        let [rows, width] = d.dims();
        match self.is_norm_merged {
            true => d.reshape([rows * self.patches, width / self.patches]),
            false => d,
        }
    }
}
