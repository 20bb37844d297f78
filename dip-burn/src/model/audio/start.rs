//! The start of the audio encoder: log-mel frames to embedded frames.
//!
//! Both convolutions have a width of 3 and are matrix products over the three neighbours of a row. The second has a stride of 2.

use burn::module::{Module, Param, ParamId};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{Activation, AudioSpec, ModuleSpec};

use crate::batch::Sound;
use crate::kernels::kernels;
use crate::model::block::linear::{Linear, linear_backward, linear_backward_weights};
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::{Init, cast};
use crate::uploads::floats;

/// Rows that a convolution reads.
const WIDTH: usize = 3;

/// Two convolutions with GELU, and fixed positions.
#[derive(Module, Debug)]
pub(super) struct AudioStart<B: Backend> {
    /// `[b * 3, m]`
    conv1: Linear<B>,
    /// `[m * 3, m]`
    conv2: Linear<B>,
    /// `[max_frames, m]`; not trained, as in Whisper.
    positions: Param<Tensor<B, 2>>,
    bands: usize,
}

/// The state that the backward needs.
pub(super) struct AudioStartKept<B: Backend> {
    /// The first convolution before its activation, `[f, m]`.
    inner1_fm: Tensor<B, 2>,
    /// The second convolution before its activation, `[r, m]`.
    inner2_rm: Tensor<B, 2>,
    /// See [`continues`].
    continues: Option<Tensor<B, 2>>,
}

impl<B: Backend> AudioStartKept<B> {
    pub fn bytes(&self) -> u64 {
        let mask = self.continues.as_ref().map_or(0, bytes_of);
        bytes_of(&self.inner1_fm) + bytes_of(&self.inner2_rm) + mask
    }
}

impl<B: Backend> AudioStart<B> {
    pub fn init(spec: &ModuleSpec, audio: &AudioSpec, init: &Init<'_, B>) -> Self {
        let (m, bands) = (spec.hidden as usize, audio.mel_bands as usize);
        let conv = |name: &str, channels: usize| {
            let std = (1.0 / (WIDTH * channels) as f64).sqrt();
            init.linear(name, WIDTH * channels, m, true, std)
        };
        let shape = [audio.max_frames as usize, m];
        let positions = match init.read {
            true => Tensor::zeros(shape, init.device),
            false => floats(sinusoids(shape), shape, init.device),
        };
        Self {
            conv1: conv("start.conv1", bands),
            conv2: conv("start.conv2", m),
            positions: Param::initialized(ParamId::new(), positions),
            bands,
        }
    }

    /// The input rows of the layers, `[r, m]`.
    pub fn forward(&self, sounds: &[Sound]) -> (Tensor<B, 2>, AudioStartKept<B>) {
        let weight = self.conv1.weight.val();
        let inner1_fm = self.conv1.forward(self.neighbours(sounds, &weight));
        let continues = continues(sounds, &weight);
        let x_fm = kernels().activate(Activation::Gelu, inner1_fm.clone());
        let inner2_rm = self.conv2.forward(strided(x_fm, continues.as_ref()));
        let table = self.positions.val();
        let of_sound = |sound: &Sound| table.clone().narrow(0, 0, sound.encoder_frames());
        let positions = Tensor::cat(sounds.iter().map(of_sound).collect(), 0);
        let x_rm = kernels().activate(Activation::Gelu, inner2_rm.clone()) + positions;
        (x_rm, AudioStartKept { inner1_fm, inner2_rm, continues })
    }

    /// Adds the gradients of the convolutions.
    pub fn backward(
        &self,
        kept: AudioStartKept<B>,
        dx_rm: Tensor<B, 2>,
        sounds: &[Sound],
        gradients: &mut Gradients<B>,
    ) {
        let AudioStartKept { inner1_fm, inner2_rm, continues } = kept;
        let x_fm = kernels().activate(Activation::Gelu, inner1_fm.clone());
        let d = kernels().activate_backward(Activation::Gelu, inner2_rm, dx_rm);
        let x = strided(x_fm, continues.as_ref());
        let d = linear_backward(&self.conv2, x, d, gradients);
        let d_fm = strided_backward(d, continues.as_ref());
        let d_fm = kernels().activate_backward(Activation::Gelu, inner1_fm, d_fm);
        let x = self.neighbours(sounds, &d_fm);
        linear_backward_weights(&self.conv1, x, &d_fm, gradients);
    }

    /// Each mel row with the rows before and after it, `[f, b * 3]`, in the type of `like`. Rows outside a sound are zeros.
    fn neighbours(&self, sounds: &[Sound], like: &Tensor<B, 2>) -> Tensor<B, 2> {
        let bands = self.bands;
        let rows: usize = sounds.iter().map(|sound| 2 * sound.encoder_frames()).sum();
        let mut values = vec![0.0; rows * bands * WIDTH];
        let mut out = values.chunks_exact_mut(bands * WIDTH);
        for sound in sounds {
            let frames = sound.mel.len() / bands;
            for (row, out) in (0..2 * sound.encoder_frames()).zip(&mut out) {
                for tap in 0..WIDTH {
                    let Some(frame) = (row + tap).checked_sub(1).filter(|&at| at < frames) else {
                        continue;
                    };
                    let mel = &sound.mel[frame * bands..(frame + 1) * bands];
                    mel.iter().enumerate().for_each(|(band, &x)| out[band * WIDTH + tap] = x);
                }
            }
        }
        cast(floats(values, [rows, bands * WIDTH], &like.device()), like.dtype())
    }
}

/// 1 for every row that follows another row of its sound, 0 for the first row of a sound, `[r, 1]`. `None` for one sound.
fn continues<B: Backend>(sounds: &[Sound], like: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    if sounds.len() < 2 {
        return None;
    }
    let of_sound = |sound: &Sound| {
        let rows = sound.encoder_frames().saturating_sub(1);
        std::iter::once(0.0).chain(std::iter::repeat_n(1.0, rows))
    };
    let values: Vec<f32> = sounds.iter().flat_map(of_sound).collect();
    let shape = [values.len(), 1];
    Some(cast(floats(values, shape, &like.device()), like.dtype()))
}

/// The three rows that the second convolution reads for each of its rows, `[f, m]` to `[r, m * 3]`: rows `2i - 1`, `2i` and
/// `2i + 1`.
fn strided<B: Backend>(x_fm: Tensor<B, 2>, continues: Option<&Tensor<B, 2>>) -> Tensor<B, 2> {
    let [f, m] = x_fm.dims();
    let r = f / 2;
    let [even, odd] = pairs(x_fm);
    let first = Tensor::zeros([1, m], (&odd.device(), odd.dtype()));
    let before = match r {
        1 => first,
        _ => Tensor::cat(vec![first, odd.clone().narrow(0, 0, r - 1)], 0),
    };
    let before = match continues {
        Some(continues) => before * continues.clone(),
        None => before,
    };
    Tensor::stack::<3>(vec![before, even, odd], 2).reshape([r, m * WIDTH])
}

/// The gradient of `x_fm` where `y = strided(x_fm)`.
fn strided_backward<B: Backend>(
    dy: Tensor<B, 2>,
    continues: Option<&Tensor<B, 2>>,
) -> Tensor<B, 2> {
    let [r, width] = dy.dims();
    let m = width / WIDTH;
    let dy = dy.reshape([r, m, WIDTH]);
    let tap = |tap| dy.clone().narrow(2, tap, 1).reshape([r, m]);
    let [before, even, odd] = [tap(0), tap(1), tap(2)];
    let before = match continues {
        Some(continues) => before * continues.clone(),
        None => before,
    };
    let last = Tensor::zeros([1, m], (&before.device(), before.dtype()));
    let odd = match r {
        1 => odd,
        _ => odd + Tensor::cat(vec![before.narrow(0, 1, r - 1), last], 0),
    };
    Tensor::stack::<3>(vec![even, odd], 1).reshape([2 * r, m])
}

/// The even and the odd rows, `[r, m]` each.
fn pairs<B: Backend>(x_fm: Tensor<B, 2>) -> [Tensor<B, 2>; 2] {
    let [f, m] = x_fm.dims();
    let x_r2m = x_fm.reshape([f / 2, 2, m]);
    [0, 1].map(|i| x_r2m.clone().narrow(1, i, 1).reshape([f / 2, m]))
}

/// The positions of Whisper: sines, then cosines, of wave lengths from 2 pi to 20000 pi.
fn sinusoids([frames, width]: [usize; 2]) -> Vec<f32> {
    let half = width / 2;
    let step = 10_000f64.ln() / half.saturating_sub(1).max(1) as f64;
    let mut values = vec![0.0; frames * width];
    for (frame, row) in values.chunks_exact_mut(width).enumerate() {
        for i in 0..half {
            let angle = frame as f64 * (-(i as f64) * step).exp();
            (row[i], row[half + i]) = (angle.sin() as f32, angle.cos() as f32);
        }
    }
    values
}
