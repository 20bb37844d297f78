//! The text encoder of the T5 type, as UMT5, over the captions of packed clips.
//!
//! Shape legend: c tokens of all captions, m width.

mod layer;
mod modality;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{LayerStrategy, T5Spec};

use super::block::layer::{self as run, LayersKept};
use super::block::norm::{Norm, NormKept};
use super::decoder::Embedding;
use super::{ChunkSpec, Gradients, Init, ModelChunk, Slice};
use layer::{T5Layer, T5Shared};
pub use modality::T5Modality;

/// Consecutive layers of the encoder, with the token embedding in the first chunk, and the last norm in the last.
#[derive(Module, Debug)]
pub struct T5Chunk<B: Backend> {
    embed: Option<Embedding<B>>,
    layers: Vec<T5Layer<B>>,
    norm: Option<Norm<B>>,
    #[module(skip)]
    spec: T5Spec,
}

/// The state that the backward of a chunk needs.
pub struct T5Kept<B: Backend> {
    layers: LayersKept<B, T5Layer<B>>,
    norm: Option<NormKept<B>>,
}

impl<B: Backend> T5Chunk<B> {
    /// A chunk of the encoder with settings `t5`.
    pub fn init(chunk: &ChunkSpec<'_>, t5: &T5Spec, init: &Init<'_, B>) -> Self {
        let spec = chunk.module();
        let (vocab, width) = (t5.vocab as usize, spec.hidden as usize);
        let table = || Embedding { weight: init.matrix("embed", [vocab, width], 1.0) };
        let norm = || Norm::rms(width, init).with_epsilon(spec.options.norm_epsilon);
        Self {
            embed: chunk.is_first().then(table),
            layers: chunk.layers.clone().map(|i| T5Layer::init(spec, t5, i, init)).collect(),
            norm: chunk.is_last().then(norm),
            spec: *t5,
        }
    }

    /// The input rows of the layers, `[c, m]`.
    fn start(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        match &self.embed {
            Some(embed) => embed.splice(inputs, on),
            None => Tensor::cat(inputs, 0),
        }
    }

    fn shared(&self, on: &Slice<'_>, device: &B::Device) -> T5Shared<B> {
        T5Shared::of(on.microbatch.caption_lengths(&on.instances), &self.spec, device)
    }
}

impl<B: Backend> ModelChunk<B> for T5Chunk<B> {
    type Kept = T5Kept<B>;

    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        let x_cm = self.start(inputs, on);
        let shared = self.shared(on, &x_cm.device());
        let x_cm = run::forward(&self.layers, x_cm, &shared);
        match &self.norm {
            Some(norm) => norm.forward(x_cm).0,
            None => x_cm,
        }
    }

    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, T5Kept<B>) {
        let x_cm = self.start(inputs, on);
        let shared = self.shared(on, &x_cm.device());
        let (x_cm, layers) = run::forward_kept(&self.layers, x_cm, shared, strategies);
        let Some(norm) = &self.norm else { return (x_cm, T5Kept { layers, norm: None }) };
        let (y_cm, norm) = norm.forward(x_cm);
        (y_cm, T5Kept { layers, norm: Some(norm) })
    }

    fn backward(
        &self,
        kept: T5Kept<B>,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let dy_cm = match (&self.norm, kept.norm) {
            (Some(norm), Some(kept)) => norm.backward(kept, dy, gradients),
            _ => dy,
        };
        let dx_cm = run::backward(&self.layers, kept.layers, dy_cm, gradients);
        match &self.embed {
            Some(embed) => embed.splice_backward(&[], dx_cm, on, gradients),
            None => vec![dx_cm],
        }
    }

    fn kept_bytes(kept: &T5Kept<B>) -> u64 {
        kept.layers.bytes() + kept.norm.as_ref().map_or(0, NormKept::bytes)
    }
}
