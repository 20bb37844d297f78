//! The end of the transformer: the velocity of every token, and the flow-matching loss.
//!
//! The output predicts the clip without noise; the velocity leads to it from the present state. Clips vary in far fewer directions
//! than noise, so that a narrow model predicts clips more easily than noise. The output of Wan is the velocity towards the noise.
//!
//! Shape legend: n clips, r their tokens, m width, v values of a token.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{DitSpec, ModuleSpec, WanSpec};

use super::layer::DitStream;
use super::modulation::{Modulation, PARTS, modulation_std, own_backward};
use super::start::rows_of;
use crate::batch::Clip;
use crate::kernels::{ClipRows, ClipTables};
use crate::model::block::linear::{Linear, linear_backward};
use crate::model::block::norm::{Norm, NormKept};
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::{Init, Slice, cast, to_f32};
use crate::uploads::floats;

/// Shift and scale: the last norm has no gate.
const END_PARTS: usize = 2;
/// Least remaining time for which a velocity is computed. A shorter time would amplify errors of the predicted clip too much.
const MIN_REMAINING: f32 = 0.05;

/// The last norm, modulated by the first two parts of the diffusion step's table, and the output. In Wan the embedding of the
/// diffusion step is both parts.
#[derive(Module, Debug)]
pub struct DitEnd<B: Backend> {
    norm: Norm<B>,
    modulation: Param<Tensor<B, 2>>,
    output: Linear<B>,
    #[module(skip)]
    wan: Option<WanSpec>,
}

/// The state that the backward needs.
pub(super) struct DitEndKept<B: Backend> {
    norm: NormKept<B>,
    steps: Tensor<B, 2>,
    clips: ClipRows<B>,
    /// Rows of the captions in the stream.
    context_rows: usize,
    /// Predicted velocity minus the velocity of the data, `[r, v]`, in f32.
    error_rv: Tensor<B, 2>,
}

impl<B: Backend> DitEndKept<B> {
    pub fn bytes(&self) -> u64 {
        self.norm.bytes() + bytes_of(&self.error_rv)
    }
}

impl<B: Backend> DitEnd<B> {
    pub(super) fn init(spec: &ModuleSpec, dit: &DitSpec, init: &Init<'_, B>) -> Self {
        let (width, values) = (spec.hidden as usize, dit.token_channels as usize);
        let norm = match dit.wan {
            Some(_) => Norm::layer_without_weights(),
            None => Norm::rms(width, init),
        };
        let norm = norm.with_epsilon(spec.options.norm_epsilon);
        let std = modulation_std(dit.wan.is_some(), width);
        Self {
            norm,
            modulation: init.matrix("modulation", [1, END_PARTS * width], std),
            output: init.linear("output", width, values, true, 0.02),
            wan: dit.wan,
        }
    }

    /// The tables of the clips, whose first two parts are shift and scale.
    fn tables(&self, steps: &Tensor<B, 2>) -> Tensor<B, 2> {
        if self.wan.is_none() {
            return steps.clone();
        }
        let width = self.modulation.dims()[1] / END_PARTS;
        let embedding = steps.clone().narrow(1, PARTS * width, width);
        Tensor::cat(vec![embedding; END_PARTS], 1)
    }

    /// The gradient of the tables of the steps, `[n, all]`, from the gradient of [`tables`](Self::tables).
    fn tables_backward(&self, d_tables: Tensor<B, 2>, all: usize) -> Tensor<B, 2> {
        if self.wan.is_none() {
            return d_tables;
        }
        let ([n, parts], options) = (d_tables.dims(), (&d_tables.device(), d_tables.dtype()));
        let width = parts / END_PARTS;
        let embedding = d_tables.clone().narrow(1, 0, width) + d_tables.narrow(1, width, width);
        Tensor::cat(vec![Tensor::zeros([n, all - width], options), embedding], 1)
    }

    /// `[r, v]`, in f32.
    pub(super) fn velocity(
        &self,
        stream: DitStream<B>,
        clips: &ClipRows<B>,
        on: &Slice<'_>,
    ) -> (Tensor<B, 2>, NormKept<B>) {
        let (normed, kept) = self.norm.forward(stream.x_rm);
        let (steps_na, own_1k) = (&self.tables(&stream.steps), &self.modulation.val());
        let x_rm = Modulation::new(ClipTables { steps_na, own_1k, clips }).scaled(normed, 0);
        let output_rv = to_f32(self.output.forward(x_rm));
        if let Some(wan) = &self.wan {
            // The output has the channels of each place together, a token has the places of each channel together.
            let [r, v] = output_rv.dims();
            let places = wan.patch_values() as usize;
            let token = output_rv.reshape([r, places, v / places]).swap_dims(1, 2);
            return (-token.reshape([r, v]), kept);
        }
        let state_rv = rows_of(on.clips(), |clip| &clip.state, &output_rv.device());
        let speed = of_clips(on.clips(), speed, &output_rv.device());
        ((output_rv - state_rv) * speed, kept)
    }

    /// The gradient of the output from the gradient of the velocity.
    fn velocity_backward(&self, d_rv: Tensor<B, 2>, on: &Slice<'_>) -> Tensor<B, 2> {
        let Some(wan) = &self.wan else {
            let speed = of_clips(on.clips(), speed, &d_rv.device());
            return d_rv * speed;
        };
        let [r, v] = d_rv.dims();
        let places = wan.patch_values() as usize;
        let output = d_rv.reshape([r, v / places, places]).swap_dims(1, 2);
        -output.reshape([r, v])
    }

    /// The sum over tokens of their mean squared error, `[1, 1]`.
    pub(super) fn forward(
        &self,
        stream: DitStream<B>,
        clips: &ClipRows<B>,
        on: &Slice<'_>,
    ) -> (Tensor<B, 2>, DitEndKept<B>) {
        let (steps, [context_rows, _]) = (stream.steps.clone(), stream.context_cm.dims());
        let (velocity_rv, norm) = self.velocity(stream, clips, on);
        let device = velocity_rv.device();
        let target_rv = rows_of(on.clips(), |clip| &clip.velocity, &device);
        let target_rv = match self.wan {
            Some(_) => target_rv,
            None => target_rv * of_clips(on.clips(), remaining, &device),
        };
        let error_rv = velocity_rv - target_rv;
        let loss = error_rv.clone().square().mean_dim(1).sum().reshape([1, 1]);
        (loss, DitEndKept { norm, steps, clips: clips.clone(), context_rows, error_rv })
    }

    /// The gradient of the stream of [`DitEnd::forward`].
    pub(super) fn backward(
        &self,
        kept: DitEndKept<B>,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> DitStream<B> {
        let DitEndKept { norm, steps, clips, context_rows, error_rv } = kept;
        let [_, values] = error_rv.dims();
        let (tables, own_1k) = (self.tables(&steps), &self.modulation.val());
        let modulation = Modulation::new(ClipTables { steps_na: &tables, own_1k, clips: &clips });
        let d_rv = self.velocity_backward(error_rv * (dy * (2.0 / values as f64)), on);
        let normed = self.norm.output(&norm);
        let input = modulation.scaled(normed.clone(), 0);
        let d_rv = cast(d_rv, normed.dtype());
        let d = linear_backward(&self.output, input, d_rv, gradients);
        let (d, d_tables) = modulation.scaled_backward(normed, d, 0, tables.zeros_like());
        let x_rm = self.norm.backward(norm, d, gradients);
        own_backward(&self.modulation, &d_tables, gradients);
        let [_, m] = x_rm.dims();
        let context_cm = Tensor::zeros([context_rows, m], (&x_rm.device(), x_rm.dtype()));
        DitStream { x_rm, context_cm, steps: self.tables_backward(d_tables, steps.dims()[1]) }
    }
}

/// One over the remaining time, which is at least the limit.
fn speed(clip: &Clip) -> f32 {
    1.0 / (1.0 - clip.time).max(MIN_REMAINING)
}

/// The remaining time times [`speed`]: 1, or less in the last [`MIN_REMAINING`], where the clip approaches its noiseless form more
/// slowly.
fn remaining(clip: &Clip) -> f32 {
    (1.0 - clip.time) * speed(clip)
}

/// A number of the clip of every token, `[r, 1]`.
fn of_clips<B: Backend>(clips: &[Clip], of: fn(&Clip) -> f32, device: &B::Device) -> Tensor<B, 2> {
    let of_clip = |clip: &Clip| std::iter::repeat_n(of(clip), clip.grid.tokens());
    let values: Vec<f32> = clips.iter().flat_map(of_clip).collect();
    let shape = [values.len(), 1];
    floats(values, shape, device)
}
