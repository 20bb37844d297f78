//! The end of the transformer: the velocity of every token, and the flow-matching loss.
//!
//! The output predicts the clip without noise; the velocity leads to it from the present state. Clips vary in far fewer directions
//! than noise, so that a narrow model predicts clips more easily than noise.
//!
//! Shape legend: n clips, r their tokens, m width, v values of a token.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::layer::DitStream;
use super::modulation::{Members, Modulation, PARTS, own_backward};
use super::start::rows_of;
use crate::batch::Clip;
use crate::model::block::linear::{Linear, linear_backward};
use crate::model::block::norm::{Norm, NormKept};
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::{Init, Slice, cast, to_f32};

/// Shift and scale: the last norm has no gate.
const END_PARTS: usize = 2;
/// Least remaining time for which a velocity is computed. A shorter time would amplify errors of the predicted clip too much.
const MIN_REMAINING: f32 = 0.05;

/// The last norm, modulated by the first two parts of the diffusion step's table, and the output.
#[derive(Module, Debug)]
pub struct DitEnd<B: Backend> {
    norm: Norm<B>,
    modulation: Param<Tensor<B, 2>>,
    output: Linear<B>,
}

/// The state that the backward needs.
pub(super) struct DitEndKept<B: Backend> {
    norm: NormKept<B>,
    steps: Tensor<B, 2>,
    /// Predicted velocity minus the velocity of the data, `[r, v]`, in f32.
    error_rv: Tensor<B, 2>,
}

impl<B: Backend> DitEndKept<B> {
    pub fn bytes(&self) -> u64 {
        self.norm.bytes() + bytes_of(&self.error_rv)
    }
}

impl<B: Backend> DitEnd<B> {
    pub(super) fn init(width: usize, values: usize, init: &Init<'_, B>) -> Self {
        Self {
            norm: Norm::rms(width, init),
            modulation: init.matrix("modulation", [1, END_PARTS * width], 0.02),
            output: init.linear("output", width, values, true, 0.02),
        }
    }

    fn modulation<'a>(&self, steps: &Tensor<B, 2>, members: &'a Members<B>) -> Modulation<'a, B> {
        let width = self.modulation.dims()[1] / END_PARTS;
        Modulation::new(steps, &self.modulation, members, width)
    }

    /// `[r, v]`, in f32.
    pub(super) fn velocity(
        &self,
        stream: DitStream<B>,
        members: &Members<B>,
        on: &Slice<'_>,
    ) -> (Tensor<B, 2>, NormKept<B>) {
        let (normed, kept) = self.norm.forward(stream.x_rm);
        let x_rm = self.modulation(&stream.steps, members).scaled(normed, 0);
        let video_rv = to_f32(self.output.forward(x_rm));
        let state_rv = rows_of(on.clips(), |clip| &clip.state, &video_rv.device());
        let speed = of_clips(on.clips(), speed, &video_rv.device());
        ((video_rv - state_rv) * speed, kept)
    }

    /// The sum over tokens of their mean squared error, `[1, 1]`.
    pub(super) fn forward(
        &self,
        stream: DitStream<B>,
        members: &Members<B>,
        on: &Slice<'_>,
    ) -> (Tensor<B, 2>, DitEndKept<B>) {
        let steps = stream.steps.clone();
        let (velocity_rv, norm) = self.velocity(stream, members, on);
        let device = velocity_rv.device();
        let target_rv = rows_of(on.clips(), |clip| &clip.velocity, &device);
        let error_rv = velocity_rv - target_rv * of_clips(on.clips(), remaining, &device);
        let loss = error_rv.clone().square().mean_dim(1).sum().reshape([1, 1]);
        (loss, DitEndKept { norm, steps, error_rv })
    }

    /// The gradient of the stream of [`DitEnd::forward`].
    pub(super) fn backward(
        &self,
        kept: DitEndKept<B>,
        dy: Tensor<B, 2>,
        members: &Members<B>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> DitStream<B> {
        let DitEndKept { norm, steps, error_rv } = kept;
        let ([_, values], device) = (error_rv.dims(), error_rv.device());
        let modulation = self.modulation(&steps, members);
        let d_rv = error_rv * (dy * (2.0 / values as f64)) * of_clips(on.clips(), speed, &device);
        let normed = self.norm.output(&norm);
        let input = modulation.scaled(normed.clone(), 0);
        let d_rv = cast(d_rv, normed.dtype());
        let d = linear_backward(&self.output, input, d_rv, gradients);
        let (d, [d_shift, d_scale]) = modulation.scaled_backward(normed, d, 0);
        let x_rm = self.norm.backward(norm, d, gradients);
        let own = Tensor::cat(vec![d_shift, d_scale], 1);
        own_backward(&self.modulation, &own, gradients);
        let ([n, used], [_, m]) = (own.dims(), x_rm.dims());
        let captions = on.microbatch.text_rows(&on.instances).len();
        let options = (&device, x_rm.dtype());
        let rest = Tensor::zeros([n, PARTS * m - used], options);
        DitStream {
            x_rm,
            context_cm: Tensor::zeros([captions, m], options),
            steps: Tensor::cat(vec![own, rest], 1),
        }
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
    Tensor::from_data(TensorData::new(values, shape), device)
}
