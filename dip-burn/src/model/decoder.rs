//! The causal language model of the Llama and Qwen2 type, over packed documents.
//!
//! Shape legend: t tokens of the packed sequence, m width, v vocabulary, r trained positions.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::nn::{Linear, RmsNorm};
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use dip_core::{ModuleKind, ModuleSpec};

use super::attention::{Attention, Geometry};
use super::core::Heads;
use super::feed_forward::FeedForward;
use super::rotary::Rotary;
use super::{Chunk, Init, ModelError};
use crate::batch::Microbatch;

/// Consecutive layers of the decoder, with the token embedding in the first chunk, and norm and head in the last.
#[derive(Module, Debug)]
pub struct DecoderChunk<B: Backend> {
    embed: Option<Embedding<B>>,
    layers: Vec<DecoderLayer<B>>,
    norm: Option<RmsNorm<B>>,
    head: Option<Linear<B>>,
    heads: Heads,
}

/// A table with one row a token.
#[derive(Module, Debug)]
pub struct Embedding<B: Backend> {
    weight: Param<Tensor<B, 2>>,
}

/// One pre-norm transformer layer.
#[derive(Module, Debug)]
pub struct DecoderLayer<B: Backend> {
    attention_norm: RmsNorm<B>,
    attention: Attention<B>,
    feed_forward_norm: RmsNorm<B>,
    feed_forward: FeedForward<B>,
}

impl<B: Backend> DecoderChunk<B> {
    /// The layers `layers` of the decoder `spec`.
    ///
    /// # Errors
    /// [`ModelError`] where the module is no decoder, or its heads cannot be turned.
    pub fn init(
        spec: &ModuleSpec,
        layers: Range<u32>,
        init: &Init<'_, B>,
    ) -> Result<Self, ModelError> {
        let ModuleKind::Decoder { vocab, head } = spec.kind else {
            return Err(ModelError::Kind { module: spec.name.clone(), kind: "not a decoder" });
        };
        if !spec.head_dim().is_multiple_of(2) {
            return Err(ModelError::Field {
                module: spec.name.clone(),
                field: "head_dim",
                value: spec.head_dim().to_string(),
                limit: "even, for rotary positions turn pairs".into(),
            });
        }
        let (first, last) = (layers.start == 0, layers.end == spec.layers);
        let (width, vocab) = (spec.hidden as usize, vocab as usize);
        let layer = |i: u32| {
            let path = format!("layers.{i}");
            DecoderLayer {
                attention_norm: init.rms_norm(width),
                attention: Attention::init(spec, &path, false, init),
                feed_forward_norm: init.rms_norm(width),
                feed_forward: FeedForward::init(spec, &path, false, init),
            }
        };
        Ok(Self {
            embed: first.then(|| Embedding { weight: init.matrix("embed", [vocab, width], 0.02) }),
            layers: layers.map(layer).collect(),
            norm: last.then(|| init.rms_norm(width)),
            head: (last && head).then(|| init.linear("head", width, vocab, false, 0.02)),
            heads: Heads::of(spec),
        })
    }

    /// Everything up to the head: `[t, m]`, normalised in the last chunk.
    fn hidden(&self, inputs: Vec<Tensor<B, 2>>, microbatch: &Microbatch) -> Tensor<B, 2> {
        let x_tm = match &self.embed {
            Some(embed) => splice(embed, inputs, microbatch),
            None => Tensor::cat(inputs, 0),
        };
        let rotary = Rotary::sequence(&microbatch.positions, self.heads.head_dim, &x_tm.device());
        let geometry = Geometry::causal_documents(self.heads, &rotary, &microbatch.documents);
        let x_tm = self.layers.iter().fold(x_tm, |x_tm, layer| layer.forward(x_tm, &geometry));
        match &self.norm {
            Some(norm) => norm.forward(x_tm),
            None => x_tm,
        }
    }

    /// Scores of the next token at `rows`, `[rows, v]`. Only for chunks that hold every layer and the head.
    pub(super) fn logits(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        microbatch: &Microbatch,
        rows: &[usize],
    ) -> Option<Tensor<B, 2>> {
        let head = self.head.as_ref()?;
        let x_tm = self.hidden(inputs, microbatch);
        let rows = indices(rows.iter().map(|&r| r as i32).collect(), &x_tm.device());
        Some(head.forward(x_tm.select(0, rows)))
    }
}

impl<B: Backend> Chunk<B> for DecoderChunk<B> {
    fn forward(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        microbatch: &Microbatch,
        _: Range<u32>,
    ) -> Tensor<B, 2> {
        let x_tm = self.hidden(inputs, microbatch);
        match &self.head {
            Some(head) => cross_entropy_sum(x_tm, head, microbatch),
            None => x_tm,
        }
    }

    fn has_loss(&self) -> bool {
        self.head.is_some()
    }
}

impl<B: Backend> DecoderLayer<B> {
    fn forward(&self, x_tm: Tensor<B, 2>, geometry: &Geometry<B>) -> Tensor<B, 2> {
        let normed = self.attention_norm.forward(x_tm.clone());
        let x_tm = x_tm + self.attention.forward(normed, geometry);
        x_tm.clone() + self.feed_forward.forward(self.feed_forward_norm.forward(x_tm))
    }
}

/// Token embeddings, with those of the images in the places of their tokens: `[t, m]`.
fn splice<B: Backend>(
    embed: &Embedding<B>,
    images: Vec<Tensor<B, 2>>,
    microbatch: &Microbatch,
) -> Tensor<B, 2> {
    let table = embed.weight.val();
    let device = table.device();
    let tokens = indices(microbatch.tokens.iter().map(|&t| t as i32).collect(), &device);
    let text_tm = table.select(0, tokens);
    if images.is_empty() {
        return text_tm;
    }
    let images = Tensor::cat(images, 0);
    let length = microbatch.tokens.len();
    let per_image = images.dims()[0] / microbatch.images.len().max(1);
    let mut source: Vec<i32> = (0..length as i32).collect();
    for (i, &offset) in microbatch.image_offsets.iter().enumerate() {
        for k in 0..per_image {
            source[offset as usize + k] = (length + i * per_image + k) as i32;
        }
    }
    Tensor::cat(vec![text_tm, images], 0).select(0, indices(source, &device))
}

/// Sum of the cross-entropies of the trained positions, `[1, 1]`. Only their rows go through the head.
fn cross_entropy_sum<B: Backend>(
    x_tm: Tensor<B, 2>,
    head: &Linear<B>,
    microbatch: &Microbatch,
) -> Tensor<B, 2> {
    let device = x_tm.device();
    let trained: Vec<usize> =
        (0..microbatch.loss_mask.len()).filter(|&i| microbatch.loss_mask[i]).collect();
    // A sequence without trained tokens still has a loss, of weight zero, so that its graph is whole.
    let (rows, weight) = if trained.is_empty() { (vec![0], 0.0) } else { (trained, 1.0) };
    let targets = rows.iter().map(|&i| microbatch.targets[i] as i32).collect();
    let r = rows.len();
    let rows = indices(rows.iter().map(|&i| i as i32).collect(), &device);
    let log_p_rv = log_softmax(head.forward(x_tm.select(0, rows)), 1);
    let log_p_r1 = log_p_rv.gather(1, indices(targets, &device).reshape([r, 1]));
    log_p_r1.sum().mul_scalar(-weight).reshape([1, 1])
}

fn indices<B: Backend>(values: Vec<i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
