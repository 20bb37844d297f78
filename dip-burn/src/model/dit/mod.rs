//! The diffusion transformer of text-to-video, of the MovieGen type, for packed clips of any length and size. Each clip attends to
//! itself and to its caption, and is trained by flow matching.
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
use dip_core::{DecoderSpec, DitSpec, LayerStrategy, ModuleSpec};

use crate::batch::Microbatch;
use crate::model::block::attention::Geometry;
use crate::model::block::core::HeadSizes;
use crate::model::block::layer::{self as run, LayersKept};
use crate::model::block::rotary::Rotary;
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::{ChunkSpec, Init, ModelChunk, ModelError, Slice};
use end::{DitEnd, DitEndKept};
use layer::{DitLayer, DitShared, DitStream};
pub use modality::DitModality;
use modulation::{Members, PARTS};
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
}

/// The state that the backward of a chunk needs.
pub struct DitKept<B: Backend> {
    /// In a first chunk, the rows of the captions, `[c, width of the text]`.
    text: Option<Tensor<B, 2>>,
    layers: LayersKept<B, DitLayer<B>>,
    end: Option<DitEndKept<B>>,
}

/// Tokens of every clip of a slice and of its caption.
#[derive(Debug, Clone)]
struct Lengths {
    clips: Vec<usize>,
    captions: Vec<usize>,
}

impl Lengths {
    fn of(on: &Slice<'_>) -> Self {
        let clips = on.clips().iter().map(|clip| clip.grid.tokens()).collect();
        Self { clips, captions: on.microbatch.caption_lengths(&on.instances) }
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
            steps: rows_m.narrow(0, r + c, n * PARTS).reshape([n, PARTS * m]),
        }
    }
}

/// The stream as the one tensor between two chunks.
fn join<B: Backend>(stream: DitStream<B>) -> Tensor<B, 2> {
    let [n, width] = stream.steps.dims();
    let steps = stream.steps.reshape([n * PARTS, width / PARTS]);
    Tensor::cat(vec![stream.x_rm, stream.context_cm, steps], 0)
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
        let (width, values) = (spec.hidden as usize, dit.token_channels as usize);
        let start = || DitStart::init(values, text.hidden as usize, width, init);
        Ok(Self {
            start: chunk.is_first().then(start),
            layers: chunk.layers.clone().map(|i| DitLayer::init(spec, i, init)).collect(),
            end: chunk.is_last().then(|| DitEnd::init(width, values, init)),
            heads: HeadSizes::of(spec),
            rope_theta: spec.options.rope.theta,
        })
    }

    /// Rows of the tensor between two chunks for all clips of a microbatch.
    pub(crate) fn wire_rows(microbatch: &Microbatch) -> usize {
        let tokens = microbatch.trained_tokens() as usize;
        tokens + microbatch.tokens.len() + PARTS * microbatch.clips.len()
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
                (Lengths::of(on).split(rows), None)
            }
        }
    }

    fn shared(&self, on: &Slice<'_>, device: &B::Device) -> DitShared<B> {
        let places: Vec<[u32; 3]> = on.clips().iter().flat_map(|c| c.grid.places()).collect();
        let rotary = Rotary::volume(&places, self.heads.head_dim, self.rope_theta, device);
        let lengths = Lengths::of(on);
        DitShared {
            own: Geometry::packed(self.heads, &rotary, &lengths.clips),
            cross: Geometry::cross(&lengths.clips, &lengths.captions),
            members: Members::of(&lengths.clips, device),
        }
    }
}

impl<B: Backend> ModelChunk<B> for DitChunk<B> {
    type Kept = DitKept<B>;

    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        let (stream, _) = self.start(inputs, on);
        let shared = self.shared(on, &stream.x_rm.device());
        let stream = run::forward(&self.layers, stream, &shared);
        match &self.end {
            Some(end) => end.forward(stream, &shared.members, on).0,
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
        let members = shared.members.clone();
        let (stream, layers) = run::forward_kept(&self.layers, stream, shared, strategies);
        match &self.end {
            Some(end) => {
                let (loss, end) = end.forward(stream, &members, on);
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
        let lengths = Lengths::of(on);
        let dy = match (&self.end, kept.end) {
            (Some(end), Some(kept)) => {
                let members = Members::of(&lengths.clips, &dy.device());
                end.backward(kept, dy, &members, on, gradients)
            }
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
        Some(self.end.as_ref()?.velocity(stream, &shared.members, on).0)
    }
}

/// The one input of a diffusion transformer.
fn text_encoder<'a>(chunk: &ChunkSpec<'a>) -> Result<&'a ModuleSpec, ModelError> {
    if let [input] = chunk.model.inputs_of(chunk.module)[..] {
        let input = &chunk.model.modules[input.index()];
        let is_text = input.kind.get::<DecoderSpec>().is_some_and(|decoder| !decoder.head);
        if is_text && input.inputs.is_empty() {
            return Ok(input);
        }
    }
    let limit = "one decoder with head = false and no inputs of its own, the text encoder";
    let inputs = format!("{:?}", chunk.module().inputs);
    Err(ModelError::field(chunk.module(), "inputs", inputs, limit))
}
