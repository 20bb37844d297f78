//! The causal language model of the Llama and Qwen2 type, over packed documents.
//!
//! Shape legend: t tokens of the packed sequence, m width, v vocabulary, r trained positions.

mod end;
mod features;
mod head;
mod layer;
mod modality;
mod start;

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use dip_core::{DecoderSpec, LayerStrategy};

use super::block::heads::HeadSizes;
use super::block::layer::Layer;
use super::block::linear::Linear;
use super::block::norm::Norm;
use super::block::rotary::RotaryFrequencies;
use super::{ChunkMemory, ChunkSpec, Gradients, Init, ModelChunk, ModelError, Slice, TiedEnds};
use crate::uploads::ints;
pub use end::DecoderEnd;
use end::DecoderEndKept;
use features::DecoderLayersKept;
pub use modality::DecoderModality;
pub use start::Embedding;
use start::InputShape;

/// Consecutive layers of the decoder, with the token embedding in the first chunk, and norm and head in the last.
#[derive(Module, Debug)]
pub struct DecoderChunk<B: Backend> {
    embed: Option<Embedding<B>>,
    layers: Vec<Layer<B>>,
    end: Option<DecoderEnd<B>>,
    heads: HeadSizes,
    /// Tokens of a window, if some of the layers have windows.
    #[module(skip)]
    window: Option<u32>,
    /// Width of the residual stream, `m`.
    #[module(skip)]
    width: usize,
    #[module(skip)]
    frequencies: RotaryFrequencies,
    /// True if the head is the token table.
    #[module(skip)]
    tied: bool,
}

/// The state that the backward of a chunk needs.
pub struct DecoderKept<B: Backend> {
    /// The shape of each input of a first chunk.
    inputs: Vec<InputShape>,
    layers: DecoderLayersKept<B>,
    end: Option<DecoderEndKept<B>>,
}

impl<B: Backend> DecoderChunk<B> {
    /// A chunk of the decoder with settings `decoder`.
    ///
    /// # Errors
    /// [`ModelError::Field`] if the head size is odd, which rotary positions do not support.
    pub fn init(
        chunk: &ChunkSpec<'_>,
        decoder: &DecoderSpec,
        init: &Init<'_, B>,
    ) -> Result<Self, ModelError> {
        let spec = chunk.module();
        if !spec.head_dim().is_multiple_of(2) {
            let limit = "even: rotary positions rotate pairs of values";
            return Err(ModelError::field(spec, "head_dim", spec.head_dim(), limit));
        }
        let (width, vocab) = (spec.hidden as usize, decoder.vocab as usize);
        let table = || init.matrix("embed", [vocab, width], 0.02);
        let tied_head = || {
            let weight = table().map(|table| table.transpose().detach().require_grad());
            Linear { weight, bias: None, lora: None }
        };
        let new_head = || init.linear("head", width, vocab, false, 0.02);
        let head = || if decoder.is_tied() { tied_head() } else { new_head() };
        let end = || DecoderEnd {
            norm: Norm::rms(width, init).with_epsilon(spec.options.norm_epsilon),
            head: decoder.head.then(head),
            z_loss: decoder.z_loss,
        };
        Ok(Self {
            embed: chunk.is_first().then(|| Embedding { weight: table() }),
            layers: chunk.layers.clone().map(|i| layer::init(spec, i, init)).collect(),
            end: chunk.is_last().then(end),
            heads: HeadSizes::of(spec),
            window: chunk.layers.clone().find_map(|i| spec.window_of(i)),
            width,
            frequencies: RotaryFrequencies::of(&spec.options.rope, spec.head_dim() as usize),
            tied: decoder.is_tied(),
        })
    }

    /// The input rows of the layers, `[t, m]`, or wider with features of an encoder beside them.
    fn start(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        match &self.embed {
            Some(embed) => embed.splice(inputs, on),
            None => Tensor::cat(inputs, 0),
        }
    }

    /// The rows after the layers, without the state that a backward needs.
    fn rows(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        let x_tm = self.start(inputs, on);
        let geometry = self.geometry(on, &x_tm.device());
        self.run(x_tm, &geometry)
    }
}

impl<B: Backend> ModelChunk<B> for DecoderChunk<B> {
    type Kept = DecoderKept<B>;

    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        let x_tm = self.rows(inputs, on);
        match &self.end {
            Some(end) => end.forward(x_tm, on.microbatch).0,
            None => x_tm,
        }
    }

    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, DecoderKept<B>) {
        let shapes = inputs.iter().map(InputShape::of).collect();
        let x_tm = self.start(inputs, on);
        let geometry = self.geometry(on, &x_tm.device());
        let (x_tm, layers) = self.run_kept(x_tm, geometry, strategies);
        let Some(end) = &self.end else {
            return (x_tm, DecoderKept { inputs: shapes, layers, end: None });
        };
        let (y, end) = end.forward(x_tm, on.microbatch);
        (y, DecoderKept { inputs: shapes, layers, end: Some(end) })
    }

    fn backward(
        &self,
        kept: DecoderKept<B>,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let dy_tm = match (&self.end, kept.end) {
            (Some(end), Some(kept)) => end.backward(kept, dy, on.microbatch, gradients),
            _ => dy,
        };
        let dx_tm = self.run_backward(kept.layers, dy_tm, gradients);
        match &self.embed {
            Some(embed) => embed.splice_backward(&kept.inputs, dx_tm, on, gradients),
            None => vec![dx_tm],
        }
    }

    fn kept_bytes(kept: &DecoderKept<B>) -> u64 {
        kept.layers.bytes() + kept.end.as_ref().map_or(0, DecoderEndKept::bytes)
    }

    fn has_loss(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.head.is_some())
    }

    fn evaluate(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        let x_tm = self.rows(inputs, on);
        match &self.end {
            Some(end) => end.evaluate(x_tm, on.microbatch),
            None => x_tm,
        }
    }

    /// Scores of the next token at `rows`, `[rows, v]`.
    fn predict(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        rows: Option<&[usize]>,
    ) -> Option<Tensor<B, 2>> {
        self.end.as_ref()?.scores(self.rows(inputs, on), rows)
    }

    fn extend(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        rows: Option<&[usize]>,
        memory: &mut ChunkMemory<B>,
    ) -> Option<Tensor<B, 2>> {
        let x_tm = self.start(inputs, on);
        let at = self.continuation(on, &mut memory.cache, &x_tm.device());
        let x_tm = self.run_extended(x_tm, &at, &mut memory.cache);
        match &self.end {
            Some(end) => end.scores(x_tm, rows),
            None => Some(x_tm),
        }
    }

    fn tied_ends(&self) -> TiedEnds<'_, B> {
        let head = self.end.as_ref().and_then(|end| end.head.as_ref());
        TiedEnds {
            table: self.embed.as_ref().filter(|_| self.tied).map(|embed| &embed.weight),
            head: head.filter(|_| self.tied).map(|head| &head.weight),
        }
    }
}

fn indices<B: Backend>(values: impl Iterator<Item = i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let values: Vec<i32> = values.collect();
    let length = values.len();
    ints(values, [length], device)
}
