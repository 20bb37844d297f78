//! The start of the transformer: embeddings of patches, captions and diffusion steps.
//!
//! Shape legend: n clips, r their tokens, c tokens of their captions, m width, v values of a token.

use burn::module::Module;
use burn::tensor::activation::silu;
use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Int, Tensor};
use dip_core::{Activation, DitSpec, STEP_EMBEDDING};

use super::layer::DitStream;
use super::modulation::{PARTS, RowMeans};
use crate::batch::Clip;
use crate::kernels::kernels;
use crate::kernels::plain::silu_backward;
use crate::model::block::linear::{Linear, linear_backward, linear_backward_weights};
use crate::model::gradients::Gradients;
use crate::model::{Init, InputSlice, Slice, cast};
use crate::uploads::{floats, ints};

/// Scales diffusion steps from 0 to 1 to the usual 1000 steps.
const STEP_SCALE: f64 = 1000.0;
/// Base of the wave lengths of positions. It is smaller than for texts, because clips are shorter.
const PLACE_BASE: f64 = 100.0;

/// Embeddings of patches and captions, and of diffusion steps.
#[derive(Module, Debug)]
pub struct DitStart<B: Backend> {
    patch_embed: Linear<B>,
    context: Linear<B>,
    /// The second layer of captions in Wan, after a GELU.
    context_output: Option<Linear<B>>,
    step: StepEmbedding<B>,
    /// Cosines and sines of a diffusion step.
    #[module(skip)]
    waves: usize,
}

/// From the waves of a diffusion step to its table of shifts, scales and gates.
#[derive(Module, Debug)]
pub struct StepEmbedding<B: Backend> {
    fc1: Linear<B>,
    fc2: Linear<B>,
    table: Linear<B>,
}

impl<B: Backend> DitStart<B> {
    /// The start of a transformer of `width` whose captions have rows of `text` values.
    pub(super) fn init(dit: &DitSpec, text: usize, width: usize, init: &Init<'_, B>) -> Self {
        let std = |input: usize| (1.0 / input as f64).sqrt();
        let linear = |name: &str, input, output, std| init.linear(name, input, output, true, std);
        let values = dit.token_channels as usize;
        let waves = dit.wan.map_or(STEP_EMBEDDING, |wan| wan.step_waves.into()) as usize;
        let output = || linear("context_output", width, width, std(width));
        Self {
            patch_embed: linear("patch_embed", values, width, std(values)),
            context: linear("context", text, width, std(text)),
            context_output: dit.wan.is_some().then(output),
            step: StepEmbedding {
                fc1: linear("step.fc1", waves, width, std(waves)),
                fc2: linear("step.fc2", width, width, std(width)),
                table: linear("step.table", width, PARTS * width, 0.02),
            },
            waves,
        }
    }

    /// The stream of a slice and the rows of its captions.
    pub(super) fn forward(&self, text: Tensor<B, 2>, on: &Slice<'_>) -> DitStream<B> {
        if let Some(output) = &self.context_output {
            return self.forward_wan(text, output, on);
        }
        let x_rm = self.embed(on.clips(), &text);
        let waves = waves(on.clips(), self.waves, |clip| clip.time, &text);
        let context_cm = self.context.forward(text);
        let whole_nm = captions(on, &context_cm).of_rows(context_cm.clone());
        let [_, _, steps] = self.step.forward(waves, Some(whole_nm));
        DitStream { x_rm, context_cm, steps }
    }

    /// The tokens with their positions in the clip: rotary positions only tell distances.
    fn embed(&self, clips: &[Clip], like: &Tensor<B, 2>) -> Tensor<B, 2> {
        let x_rm = self.patch_embed.forward(states(clips, like));
        let [_, width] = x_rm.dims();
        x_rm + places(clips, width, like)
    }

    /// As [`DitStart::forward`], as Wan starts: rotary positions alone, captions with padding, steps without captions.
    fn forward_wan(&self, text: Tensor<B, 2>, output: &Linear<B>, on: &Slice<'_>) -> DitStream<B> {
        let x_rm = self.patch_embed.forward(states(on.clips(), &text));
        let waves = waves(on.clips(), self.waves, noise_time, &text);
        let [_, embedding, table] = self.step.forward(waves, None);
        let padding = Padding::of(on, &text);
        let inner =
            kernels().activate(Activation::GeluTanh, self.context.forward(padding.with_zero(text)));
        let context_cm = padding.spread(output.forward(inner));
        DitStream { x_rm, context_cm, steps: Tensor::cat(vec![table, embedding], 1) }
    }

    /// The gradient of the rows of the captions.
    pub(super) fn backward(
        &self,
        text: Tensor<B, 2>,
        dy: DitStream<B>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let states = states(on.clips(), &text);
        linear_backward_weights(&self.patch_embed, states, &dy.x_rm, gradients);
        if let Some(output) = &self.context_output {
            return self.backward_wan([text, dy.context_cm, dy.steps], output, on, gradients);
        }
        // Recomputed: captions have few rows.
        let context_cm = self.context.forward(text.clone());
        let captions = captions(on, &context_cm);
        let waves = waves(on.clips(), self.waves, |clip| clip.time, &text);
        let step =
            StepGiven { waves, whole_nm: Some(captions.of_rows(context_cm)), d_embedding: None };
        let d_whole_nm = self.step.backward(step, dy.steps, gradients);
        let d_context = dy.context_cm + captions.backward(d_whole_nm);
        linear_backward(&self.context, text, d_context, gradients)
    }

    fn backward_wan(
        &self,
        [text, d_context_cm, d_steps]: [Tensor<B, 2>; 3],
        output: &Linear<B>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let ([_, all], waves) = (d_steps.dims(), waves(on.clips(), self.waves, noise_time, &text));
        let table = all / (PARTS + 1) * PARTS;
        let d_embedding = d_steps.clone().narrow(1, table, all - table);
        let step = StepGiven { waves, whole_nm: None, d_embedding: Some(d_embedding) };
        self.step.backward(step, d_steps.narrow(1, 0, table), gradients);
        // Recomputed: captions have few rows.
        let ([captions, _], padding) = (text.dims(), Padding::of(on, &text));
        let text = padding.with_zero(text);
        let inner = self.context.forward(text.clone());
        let d = padding.spread_backward(d_context_cm);
        let activated = kernels().activate(Activation::GeluTanh, inner.clone());
        let d = linear_backward(output, activated, d, gradients);
        let d = kernels().activate_backward(Activation::GeluTanh, inner, d);
        linear_backward(&self.context, text, d, gradients).narrow(0, 0, captions)
    }
}

/// The inputs of a step embedding, and the gradient of the embedding itself if later layers read it.
struct StepGiven<B: Backend> {
    waves: Tensor<B, 2>,
    /// The mean of each caption, if it is added to the embedding.
    whole_nm: Option<Tensor<B, 2>>,
    d_embedding: Option<Tensor<B, 2>>,
}

impl<B: Backend> StepEmbedding<B> {
    /// The values before the first activation, the embedding `[n, m]`, and the table `[n, 6 * m]`.
    fn forward(&self, waves: Tensor<B, 2>, whole_nm: Option<Tensor<B, 2>>) -> [Tensor<B, 2>; 3] {
        let a = self.fc1.forward(waves);
        let b = self.fc2.forward(silu(a.clone()));
        let b = match whole_nm {
            Some(whole_nm) => b + whole_nm,
            None => b,
        };
        let table = self.table.forward(silu(b.clone()));
        [a, b, table]
    }

    /// The gradient of the embedding, which is the gradient of the captions. Recomputes the forward, which has only one row for each
    /// clip.
    fn backward(
        &self,
        given: StepGiven<B>,
        d_table: Tensor<B, 2>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let StepGiven { waves, whole_nm, d_embedding } = given;
        let [a, b, _] = self.forward(waves.clone(), whole_nm);
        let d = linear_backward(&self.table, silu(b.clone()), d_table, gradients);
        let d_b = silu_backward(b, d);
        let d_b = match d_embedding {
            Some(d_embedding) => d_b + d_embedding,
            None => d_b,
        };
        let d = linear_backward(&self.fc2, silu(a.clone()), d_b.clone(), gradients);
        linear_backward_weights(&self.fc1, waves, &silu_backward(a, d), gradients);
        d_b
    }
}

/// Where the rows of padded captions come from: Wan pads captions with zeros, and clips attend to the padding. All padding of a
/// caption is one row, which counts as often as it occurs.
struct Padding<B: Backend> {
    /// Rows of all captions.
    captions: usize,
    /// For every row of the padded captions, its row among the captions and one zero row after them.
    rows: Tensor<B, 1, Int>,
}

impl<B: Backend> Padding<B> {
    fn of(on: &Slice<'_>, like: &Tensor<B, 2>) -> Self {
        let lengths = on.microbatch.caption_lengths(&on.instances);
        let captions: usize = lengths.iter().sum();
        let (mut rows, mut at) = (Vec::with_capacity(captions + lengths.len()), 0);
        for length in lengths {
            rows.extend((at..at + length).chain([captions]).map(|row| row as i32));
            at += length;
        }
        let shape = [rows.len()];
        Self { captions, rows: ints(rows, shape, &like.device()) }
    }

    /// The captions and a row of zeros.
    fn with_zero(&self, text: Tensor<B, 2>) -> Tensor<B, 2> {
        let ([_, width], options) = (text.dims(), (&text.device(), text.dtype()));
        kernels().joined_rows(vec![text, Tensor::zeros([1, width], options)])
    }

    fn spread(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        kernels().selected_rows(x, self.rows.clone())
    }

    fn spread_backward(&self, dy: Tensor<B, 2>) -> Tensor<B, 2> {
        let ([_, width], options) = (dy.dims(), (&dy.device(), dy.dtype()));
        let zeros = Tensor::zeros([self.captions + 1, width], options);
        zeros.select_assign(0, self.rows.clone(), dy, IndexingUpdateOp::Add)
    }
}

/// The time of Wan's steps: 0 is the video, 1 is noise.
fn noise_time(clip: &Clip) -> f32 {
    1.0 - clip.time
}

/// The matrix that takes the mean of each caption. The mean reaches every token from the first iteration, before cross attention
/// has learnt where to look.
fn captions<B: Backend>(on: &Slice<'_>, like: &Tensor<B, 2>) -> RowMeans<B> {
    RowMeans::of(&on.microbatch.caption_lengths(&on.instances), &like.device())
}

/// The noisy values of every token, `[r, v]`, in the type of `like`.
fn states<B: Backend>(clips: &[Clip], like: &Tensor<B, 2>) -> Tensor<B, 2> {
    cast(rows_of(clips, |clip| &clip.state, &like.device()), like.dtype())
}

/// Values of every token, `[r, v]`, in f32.
pub(super) fn rows_of<B: Backend>(
    clips: &[Clip],
    of: impl Fn(&Clip) -> &Vec<f32>,
    device: &B::Device,
) -> Tensor<B, 2> {
    let values: Vec<f32> = clips.iter().flat_map(|clip| of(clip).iter().copied()).collect();
    let rows: usize = clips.iter().map(|clip| clip.grid.tokens()).sum();
    let shape = [rows, values.len() / rows];
    floats(values, shape, device)
}

/// `count` cosines and sines of the diffusion steps, in the type of `like`.
fn waves<B: Backend>(
    clips: &[Clip],
    count: usize,
    time: fn(&Clip) -> f32,
    like: &Tensor<B, 2>,
) -> Tensor<B, 2> {
    let half = count / 2;
    let wave = |time: f32, i: usize| {
        let angle =
            f64::from(time) * STEP_SCALE * 10_000f64.powf(-((i % half) as f64) / half as f64);
        (if i < half { angle.cos() } else { angle.sin() }) as f32
    };
    let values: Vec<f32> =
        clips.iter().flat_map(|c| (0..count).map(move |i| wave(time(c), i))).collect();
    cast(floats(values, [clips.len(), count], &like.device()), like.dtype())
}

/// Cosines and sines of frame, row and column of every token, `[r, m]`, a third of the width each, in the type of `like`.
fn places<B: Backend>(clips: &[Clip], width: usize, like: &Tensor<B, 2>) -> Tensor<B, 2> {
    let waves = (width / 6).max(1);
    let value = |place: [u32; 3], i: usize| {
        let (axis, wave) = (i / (2 * waves), i % (2 * waves));
        let Some(&position) = place.get(axis) else { return 0.0 };
        let angle = f64::from(position) * PLACE_BASE.powf(-((wave % waves) as f64) / waves as f64);
        (if wave < waves { angle.cos() } else { angle.sin() }) as f32
    };
    let of_token = |place: [u32; 3]| (0..width).map(move |i| value(place, i));
    let values: Vec<f32> = clips.iter().flat_map(|c| c.grid.places().flat_map(of_token)).collect();
    let shape = [clips.iter().map(|c| c.grid.tokens()).sum(), width];
    cast(floats(values, shape, &like.device()), like.dtype())
}

/// The rows of the captions of a slice, from slices of the text encoder, which may hold other captions, too.
pub(super) fn captions_of<B: Backend>(inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
    let parts: Vec<Tensor<B, 2>> = inputs
        .into_iter()
        .zip(parts(on))
        .filter(|(_, part)| part.rows > 0)
        .map(|(x, part)| x.narrow(0, part.before, part.rows))
        .collect();
    kernels().joined_rows(parts)
}

/// The gradient of each input of [`captions_of`]: zero in the rows of other captions.
pub(super) fn captions_backward<B: Backend>(
    d_text: Tensor<B, 2>,
    on: &Slice<'_>,
) -> Vec<Tensor<B, 2>> {
    let ([_, width], options) = (d_text.dims(), (&d_text.device(), d_text.dtype()));
    // No tensor without rows may reach a device.
    let zeros = |rows: usize| (rows > 0).then(|| Tensor::zeros([rows, width], options));
    let mut at = 0;
    let spread = |part: InputPart| {
        let own = (part.rows > 0).then(|| d_text.clone().narrow(0, at, part.rows));
        at += part.rows;
        let all = [zeros(part.before), own, zeros(part.after)];
        kernels().joined_rows(all.into_iter().flatten().collect())
    };
    parts(on).into_iter().map(spread).collect()
}

/// Rows of one input: the rows of the slice, and the rows of captions before and after them.
struct InputPart {
    before: usize,
    rows: usize,
    after: usize,
}

fn parts(on: &Slice<'_>) -> Vec<InputPart> {
    let rows = |clips: std::ops::Range<u32>| on.microbatch.text_rows(&clips).len();
    let part = |input: &InputSlice| {
        let input = &input.instances;
        let (start, end) = (input.start.max(on.instances.start), input.end.min(on.instances.end));
        InputPart {
            before: rows(input.start..start),
            rows: rows(start..end),
            after: rows(end..input.end),
        }
    };
    on.inputs.iter().map(part).collect()
}
