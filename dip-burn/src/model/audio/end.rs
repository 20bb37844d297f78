//! The end of the audio encoder: an adapter that turns neighbouring frames into tokens of the decoder.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Int, Tensor};
use dip_core::{AudioProjector, AudioSpec};

use crate::batch::Sound;
use crate::kernels::kernels;
use crate::model::block::linear::{Linear, linear_backward};
use crate::model::block::merger::{Merger, MergerKept};
use crate::model::block::norm::{Norm, NormKept};
use crate::model::{ChunkSpec, Gradients, Init, cast, to_f32};
use crate::uploads::ints;

/// The adapter of one of the two kinds.
#[derive(Module, Debug)]
pub(super) struct AudioEnd<B: Backend> {
    merger: Option<Merger<B>>,
    pooled: Option<PooledProjector<B>>,
    #[module(skip)]
    audio: AudioSpec,
}

/// The mean of neighbouring frames, a norm, and one linear layer.
#[derive(Module, Debug)]
struct PooledProjector<B: Backend> {
    norm: Norm<B>,
    linear: Linear<B>,
}

/// The state that the backward needs.
pub(super) struct AudioEndKept<B: Backend> {
    groups: Groups<B>,
    merger: Option<MergerKept<B>>,
    pooled: Option<NormKept<B>>,
}

impl<B: Backend> AudioEndKept<B> {
    pub fn bytes(&self) -> u64 {
        let merger = self.merger.as_ref().map_or(0, MergerKept::bytes);
        merger + self.pooled.as_ref().map_or(0, NormKept::bytes) + self.groups.bytes()
    }
}

impl<B: Backend> AudioEnd<B> {
    pub fn init(chunk: &ChunkSpec<'_>, audio: &AudioSpec, init: &Init<'_, B>) -> Self {
        let (spec, output) = (chunk.module(), chunk.output_width());
        let width = spec.hidden as usize;
        let pooled = || PooledProjector {
            norm: Norm::layer(width, init).with_epsilon(spec.options.norm_epsilon),
            linear: init.linear("end.pooled.linear", width, output, true, 0.02),
        };
        Self {
            merger: audio.projector.is_merger().then(|| Merger::init(spec, output, init)),
            pooled: (audio.projector == AudioProjector::Pooled).then(pooled),
            audio: *audio,
        }
    }

    /// `[r, m]` to `[t, output]`.
    pub fn forward(&self, x_rm: Tensor<B, 2>, sounds: &[Sound]) -> (Tensor<B, 2>, AudioEndKept<B>) {
        let groups = Groups::of(sounds, &self.audio, &x_rm.device());
        let x_rm = groups.take(x_rm);
        if let Some(merger) = &self.merger {
            let (y, kept) = merger.forward(x_rm);
            return (y, AudioEndKept { groups, merger: Some(kept), pooled: None });
        }
        let Some(PooledProjector { norm, linear }) = &self.pooled else {
            unreachable!("an adapter is of one of the two kinds")
        };
        let (normed, kept) = norm.forward(mean(x_rm, self.audio.merge as usize));
        (linear.forward(normed), AudioEndKept { groups, merger: None, pooled: Some(kept) })
    }

    /// The gradient of `x_rm`.
    pub fn backward(
        &self,
        kept: AudioEndKept<B>,
        dy: Tensor<B, 2>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let d = match (&self.merger, kept.merger, &self.pooled, kept.pooled) {
            (Some(merger), Some(kept), ..) => merger.backward(kept, dy, gradients),
            (.., Some(PooledProjector { norm, linear }), Some(kept)) => {
                let d = linear_backward(linear, norm.output(&kept), dy, gradients);
                let d = norm.backward(kept, d, gradients);
                spread(d, self.audio.merge as usize)
            }
            _ => unreachable!("the forward of the same adapter kept the state"),
        };
        kept.groups.take_backward(d)
    }
}

/// The rows of the frames that the adapter reads: whole tokens of every sound.
struct Groups<B: Backend> {
    /// Encoder frames of all sounds.
    rows: usize,
    /// The row of each frame; `rows` is a row of zeros. `None` if the adapter reads all frames in order.
    source: Option<Tensor<B, 1, Int>>,
}

impl<B: Backend> Groups<B> {
    fn of(sounds: &[Sound], audio: &AudioSpec, device: &B::Device) -> Self {
        let merge = audio.merge as usize;
        let rows: usize = sounds.iter().map(Sound::encoder_frames).sum();
        let (mut source, mut start) = (Vec::new(), 0);
        for sound in sounds {
            let frames = sound.encoder_frames();
            let read = audio.tokens_of(frames as u64) as usize * merge;
            let row = |i: usize| if i < frames { start + i } else { rows };
            source.extend((0..read).map(|i| row(i) as i32));
            start += frames;
        }
        let whole = source.iter().copied().eq(0..rows as i32);
        let length = source.len();
        let upload = || ints(source, [length], device);
        Self { rows, source: (!whole).then(upload) }
    }

    fn take(&self, x_rm: Tensor<B, 2>) -> Tensor<B, 2> {
        let Some(source) = &self.source else { return x_rm };
        let zeros = Tensor::zeros([1, x_rm.dims()[1]], (&x_rm.device(), x_rm.dtype()));
        kernels().selected_rows(kernels().joined_rows(vec![x_rm, zeros]), source.clone())
    }

    /// The gradient of `x_rm` where `y = take(x_rm)`.
    fn take_backward(&self, dy: Tensor<B, 2>) -> Tensor<B, 2> {
        let Some(source) = &self.source else { return dy };
        let width = dy.dims()[1];
        let zeros = Tensor::zeros([self.rows + 1, width], (&dy.device(), dy.dtype()));
        let all = zeros.select_assign(0, source.clone(), dy, IndexingUpdateOp::Add);
        all.narrow(0, 0, self.rows)
    }

    fn bytes(&self) -> u64 {
        self.source.as_ref().map_or(0, |rows| rows.dims()[0] as u64 * size_of::<i32>() as u64)
    }
}

/// The mean of every `count` neighbouring rows, `[t * count, m]` to `[t, m]`.
fn mean<B: Backend>(x: Tensor<B, 2>, count: usize) -> Tensor<B, 2> {
    let ([rows, m], dtype) = (x.dims(), x.dtype());
    let sums = to_f32(x).reshape([rows / count, count, m]).mean_dim(1);
    cast(sums.reshape([rows / count, m]), dtype)
}

/// The gradient of `x` where `y = mean(x)`.
fn spread<B: Backend>(dy: Tensor<B, 2>, count: usize) -> Tensor<B, 2> {
    let [t, m] = dy.dims();
    let share = dy / count as f64;
    share.reshape([t, 1, m]).repeat_dim(1, count).reshape([t * count, m])
}
