//! The diffusion transformer of text-to-video, of the MovieGen type or of Wan, for packed clips of any length and size. Each clip
//! attends to itself and to its caption, and is trained by flow matching.
//!
//! A chunk sends one tensor to the next: the rows of the clips, of their captions and of their diffusion steps, which later chunks
//! need as well. Gradients come back in the same form.
//!
//! Shape legend: n clips, r their tokens, c tokens of their captions, m width, v values of a token.

mod end;
mod layer;
mod modality;
mod modulation;
mod start;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{DecoderSpec, DitSpec, LayerStrategy, ModuleSpec, T5Spec, WanSpec};

use crate::batch::Microbatch;
use crate::kernels::{ClipRows, kernels};
use crate::model::block::geometry::Geometry;
use crate::model::block::heads::HeadSizes;
use crate::model::block::layer::{self as run, LayersKept};
use crate::model::block::rotary::{Rotary, RotaryPairs};
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::{ChunkMemory, ChunkSpec, Init, ModelChunk, ModelError, Slice};
use end::{DitEnd, DitEndKept};
use layer::{DitLayer, DitShared, DitStream};
pub use modality::DitModality;
use modulation::PARTS;
use start::DitStart;

/// Consecutive layers of the transformer, with its embeddings in the first chunk, and output and loss in the last.
#[derive(Module, Debug)]
pub struct DitChunk<B: Backend> {
    start: Option<DitStart<B>>,
    layers: Vec<DitLayer<B>>,
    end: Option<DitEnd<B>>,
    heads: HeadSizes,
    /// Base of the angles of rotary positions.
    #[module(skip)]
    rope_theta: f64,
    #[module(skip)]
    wan: Option<WanSpec>,
}

/// The state that the backward of a chunk needs.
pub struct DitKept<B: Backend> {
    /// In a first chunk, the rows of the captions, `[c, width of the text]`.
    text: Option<Tensor<B, 2>>,
    layers: LayersKept<B, DitLayer<B>>,
    end: Option<DitEndKept<B>>,
}

/// Rows of every clip of a slice and of its caption, and the parts of the table of its diffusion step.
#[derive(Debug, Clone)]
struct Lengths {
    clips: Vec<usize>,
    captions: Vec<usize>,
    parts: usize,
}

impl Lengths {
    fn of(on: &Slice<'_>, wan: Option<&WanSpec>) -> Self {
        let clips = on.clips().iter().map(|clip| clip.grid.tokens()).collect();
        let captions = on.microbatch.caption_lengths(&on.instances).into_iter();
        let padding = usize::from(wan.is_some());
        let captions = captions.map(|length| length + padding).collect();
        Self { clips, captions, parts: PARTS + padding }
    }

    fn rows(&self) -> usize {
        self.clips.iter().sum()
    }

    /// Splits the rows of the tensor between two chunks.
    fn split<B: Backend>(&self, rows_m: Tensor<B, 2>) -> DitStream<B> {
        let (r, c, n) = (self.rows(), self.captions.iter().sum::<usize>(), self.clips.len());
        let [_, m] = rows_m.dims();
        DitStream {
            x_rm: rows_m.clone().narrow(0, 0, r),
            context_cm: rows_m.clone().narrow(0, r, c),
            steps: rows_m.narrow(0, r + c, n * self.parts).reshape([n, self.parts * m]),
        }
    }

    /// Rows of the tensor between two chunks.
    fn wire_rows(&self) -> usize {
        self.rows() + self.captions.iter().sum::<usize>() + self.parts * self.clips.len()
    }
}

/// The stream as the one tensor between two chunks, `[rows, m]`.
fn join<B: Backend>(stream: DitStream<B>) -> Tensor<B, 2> {
    let ([n, all], [_, m]) = (stream.steps.dims(), stream.x_rm.dims());
    let steps = stream.steps.reshape([n * all / m, m]);
    kernels().joined_rows(vec![stream.x_rm, stream.context_cm, steps])
}

impl<B: Backend> DitChunk<B> {
    /// A chunk of the transformer with settings `dit`.
    ///
    /// # Errors
    /// [`ModelError::Field`] if the head size does not support rotary positions, or the input is not one text encoder.
    pub fn init(
        chunk: &ChunkSpec<'_>,
        dit: &DitSpec,
        init: &Init<'_, B>,
    ) -> Result<Self, ModelError> {
        let spec = chunk.module();
        if !spec.head_dim().is_multiple_of(2) || spec.head_dim() < 6 {
            let limit =
                "even and at least 6: rotary positions rotate pairs by frame, row and column";
            return Err(ModelError::field(spec, "head_dim", spec.head_dim(), limit));
        }
        let text = text_encoder(chunk)?;
        let start = || DitStart::init(dit, text.hidden as usize, spec.hidden as usize, init);
        let is_wan = dit.wan.is_some();
        Ok(Self {
            start: chunk.is_first().then(start),
            layers: chunk.layers.clone().map(|i| DitLayer::init(spec, is_wan, i, init)).collect(),
            end: chunk.is_last().then(|| DitEnd::init(spec, dit, init)),
            heads: HeadSizes::of(spec),
            rope_theta: spec.options.rope.theta,
            wan: dit.wan,
        })
    }

    /// The input stream of the layers, and in a first chunk the rows of the captions.
    fn start(
        &self,
        mut inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
    ) -> (DitStream<B>, Option<Tensor<B, 2>>) {
        match &self.start {
            Some(start) => {
                let text = start::captions_of(inputs, on);
                (start.forward(text.clone(), on), Some(text))
            }
            None => {
                let rows = inputs.pop().expect("the interpreter gives a later chunk its input");
                (self.lengths(on).split(rows), None)
            }
        }
    }

    fn lengths(&self, on: &Slice<'_>) -> Lengths {
        Lengths::of(on, self.wan.as_ref())
    }

    fn shared(&self, on: &Slice<'_>, device: &B::Device) -> DitShared<B> {
        let places: Vec<[u32; 3]> = on.clips().iter().flat_map(|c| c.grid.places()).collect();
        let is_wan = self.wan.is_some();
        let pairs = if is_wan { RotaryPairs::Neighbours } else { RotaryPairs::Halves };
        let head_dim = self.heads.head_dim;
        let rotary = Rotary::volume(&places, head_dim, self.rope_theta, pairs, device);
        let lengths = self.lengths(on);
        let cross = Geometry::cross(&lengths.clips, &lengths.captions);
        let cross = match &self.wan {
            Some(wan) => cross.with_last_keys_counted(wan.caption_tokens as usize, device),
            None => cross.at_once(self.heads, device),
        };
        DitShared {
            own: Geometry::packed(self.heads, &rotary, &lengths.clips),
            cross,
            clips: ClipRows::new(&lengths.clips, device),
        }
    }
}

/// Rows of the tensor between two chunks of `dit` for all clips of a microbatch.
fn wire_rows(dit: &DitSpec, microbatch: &Microbatch) -> usize {
    let instances = 0..microbatch.clips.len() as u32;
    let slice = Slice { microbatch, instances, inputs: Vec::new() };
    Lengths::of(&slice, dit.wan.as_ref()).wire_rows()
}

impl<B: Backend> ModelChunk<B> for DitChunk<B> {
    type Kept = DitKept<B>;

    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        let (stream, _) = self.start(inputs, on);
        let shared = self.shared(on, &stream.x_rm.device());
        let stream = run::forward(&self.layers, stream, &shared);
        match &self.end {
            Some(end) => end.forward(stream, &shared.clips, on).0,
            None => join(stream),
        }
    }

    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, DitKept<B>) {
        let (stream, text) = self.start(inputs, on);
        let shared = self.shared(on, &stream.x_rm.device());
        let clips = shared.clips.clone();
        let (stream, layers) = run::forward_kept(&self.layers, stream, shared, strategies);
        match &self.end {
            Some(end) => {
                let (loss, end) = end.forward(stream, &clips, on);
                (loss, DitKept { text, layers, end: Some(end) })
            }
            None => (join(stream), DitKept { text, layers, end: None }),
        }
    }

    fn backward(
        &self,
        kept: DitKept<B>,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let lengths = self.lengths(on);
        let dy = match (&self.end, kept.end) {
            (Some(end), Some(kept)) => end.backward(kept, dy, on, gradients),
            _ => lengths.split(dy),
        };
        let dx = run::backward(&self.layers, kept.layers, dy, gradients);
        match (&self.start, kept.text) {
            (Some(start), Some(text)) => {
                let d_text = start.backward(text, dx, on, gradients);
                start::captions_backward(d_text, on)
            }
            _ => vec![join(dx)],
        }
    }

    fn kept_bytes(kept: &DitKept<B>) -> u64 {
        kept.layers.bytes()
            + kept.text.as_ref().map_or(0, bytes_of)
            + kept.end.as_ref().map_or(0, DitEndKept::bytes)
    }

    fn has_loss(&self) -> bool {
        self.end.is_some()
    }

    /// The captions stay while clips move from noise to video.
    fn extend(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        _: Option<&[usize]>,
        memory: &mut ChunkMemory<B>,
    ) -> Option<Tensor<B, 2>> {
        let stream = match &self.start {
            Some(start) => {
                if !inputs.is_empty() {
                    memory.inputs = vec![start::captions_of(inputs, on)];
                }
                start.forward(memory.inputs.first()?.clone(), on)
            }
            None => self.start(inputs, on).0,
        };
        let shared = self.shared(on, &stream.x_rm.device());
        let stream = run::forward(&self.layers, stream, &shared);
        Some(match &self.end {
            Some(end) => end.velocity(stream, &shared.clips, on).0,
            None => join(stream),
        })
    }

    /// The velocity of every token, `[r, v]`.
    fn predict(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        _: Option<&[usize]>,
    ) -> Option<Tensor<B, 2>> {
        let (stream, _) = self.start(inputs, on);
        let shared = self.shared(on, &stream.x_rm.device());
        let stream = run::forward(&self.layers, stream, &shared);
        Some(self.end.as_ref()?.velocity(stream, &shared.clips, on).0)
    }
}

/// The one input of a diffusion transformer.
fn text_encoder<'a>(chunk: &ChunkSpec<'a>) -> Result<&'a ModuleSpec, ModelError> {
    if let [input] = chunk.model.inputs_of(chunk.module)[..] {
        let input = &chunk.model.modules[input.index()];
        let is_encoder = input.kind.get::<DecoderSpec>().is_some_and(|decoder| !decoder.head);
        let is_text = is_encoder || input.kind.get::<T5Spec>().is_some();
        if is_text && input.inputs.is_empty() {
            return Ok(input);
        }
    }
    let limit = "one text encoder: a t5, or a decoder with head = false, without inputs of its own";
    let inputs = format!("{:?}", chunk.module().inputs);
    Err(ModelError::field(chunk.module(), "inputs", inputs, limit))
}
