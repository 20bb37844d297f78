//! The causal language model of the Llama and Qwen2 type, over packed documents.
//!
//! Shape legend: t tokens of the packed sequence, m width, v vocabulary, r trained positions.

mod coordinates;

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorData};
use dip_core::{DecoderSpec, LayerStrategy, ModuleSpec};

use crate::batch::Microbatch;
use crate::model::block::attention::{Attention, Geometry};
use crate::model::block::core::Heads;
use crate::model::block::feed_forward::FeedForward;
use crate::model::block::layer::{self, Layer, LayersKept};
use crate::model::block::linear::{Linear, linear_backward};
use crate::model::block::norm::{Norm, NormKept};
use crate::model::block::rotary::{Rotary, Turning};
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::{Chunk, Init, ModelError, Slice, cast, to_f32};
use coordinates::coordinates;

/// Consecutive layers of the decoder, with the token embedding in the first chunk, and norm and head in the last.
#[derive(Module, Debug)]
pub struct DecoderChunk<B: Backend> {
    embed: Option<Embedding<B>>,
    layers: Vec<Layer<B>>,
    end: Option<End<B>>,
    heads: Heads,
    #[module(skip)]
    turning: Turning,
    /// Tokens on a side of an image, where rows and columns of images are positions of their own.
    #[module(skip)]
    image_side: Option<usize>,
    /// Whether the head is the token table.
    #[module(skip)]
    tied: bool,
}

/// A table with one row a token.
#[derive(Module, Debug)]
pub struct Embedding<B: Backend> {
    weight: Param<Tensor<B, 2>>,
}

/// The last norm, and the head with its loss where there is one.
#[derive(Module, Debug)]
pub struct End<B: Backend> {
    norm: Norm<B>,
    head: Option<Linear<B>>,
}

/// A weight with two dimensions.
pub(crate) type Matrix<B> = Param<Tensor<B, 2>>;

/// What the backward of a chunk needs.
pub struct DecoderKept<B: Backend> {
    /// Rows of each input of a first chunk.
    inputs: Vec<usize>,
    layers: LayersKept<B, Layer<B>>,
    norm: Option<NormKept<B>>,
    /// Log-probabilities of the trained rows, `[r, v]`, in f32.
    log_p_rv: Option<Tensor<B, 2>>,
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
        let Some(&DecoderSpec { vocab, head, .. }) = spec.kind.get() else {
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
        let norm = || Norm::rms(width, init).with_epsilon(spec.options.norm_epsilon);
        let layer = |i: u32| {
            let path = format!("layers.{i}");
            Layer {
                attention_norm: norm(),
                attention: Attention::init(spec, &path, init),
                feed_forward_norm: norm(),
                feed_forward: FeedForward::init(spec, &path, false, init),
            }
        };
        let table = || init.matrix("embed", [vocab, width], 0.02);
        let tied_head = || {
            let weight = table().map(|table| table.transpose().detach().require_grad());
            Linear { weight, bias: None, lora: None }
        };
        let new_head = || init.linear("head", width, vocab, false, 0.02);
        let make_head = || if spec.is_tied() { tied_head() } else { new_head() };
        Ok(Self {
            embed: first.then(|| Embedding { weight: table() }),
            layers: layers.map(layer).collect(),
            end: last.then(|| End { norm: norm(), head: head.then(make_head) }),
            heads: Heads::of(spec),
            turning: Turning::of(&spec.options.rope, spec.head_dim() as usize),
            image_side: None,
            tied: spec.is_tied(),
        })
    }

    /// The same chunk where an image is a square of `side` tokens, whose rows and columns are positions of their own.
    #[must_use]
    pub fn with_image_side(self, side: Option<usize>) -> Self {
        Self { image_side: side, ..self }
    }

    /// The token table that this chunk holds of a decoder whose head is its token table.
    pub(crate) fn tied_table(&self) -> Option<&Matrix<B>> {
        self.embed.as_ref().filter(|_| self.tied).map(|embed| &embed.weight)
    }

    /// The head that this chunk holds of such a decoder.
    pub(crate) fn tied_head(&self) -> Option<&Matrix<B>> {
        let head = self.end.as_ref().and_then(|end| end.head.as_ref());
        head.filter(|_| self.tied).map(|head| &head.weight)
    }

    /// What the layers start from, `[t, m]`.
    fn start(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        match &self.embed {
            Some(embed) => embed.splice(inputs, on),
            None => Tensor::cat(inputs, 0),
        }
    }

    fn geometry(&self, on: &Slice<'_>, device: &B::Device) -> Geometry<B> {
        let rows = on.microbatch.text_rows(&on.instances);
        let places = match self.image_side {
            Some(side) => coordinates(on.microbatch, side),
            None => on.microbatch.positions.iter().map(|&p| [p; 3]).collect(),
        };
        let rotary = Rotary::sequence(&places[rows.clone()], &self.turning, device);
        Geometry::causal_documents(self.heads, &rotary, &on.microbatch.documents[rows])
    }

    /// Scores of the next token at `rows`, `[rows, v]`. Only for chunks that hold every layer and the head.
    pub(super) fn logits(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        rows: &[usize],
    ) -> Option<Tensor<B, 2>> {
        let End { norm, head } = self.end.as_ref()?;
        let x_tm = self.start(inputs, on);
        let geometry = self.geometry(on, &x_tm.device());
        let x_tm = layer::forward(&self.layers, x_tm, &geometry);
        let rows = indices(rows.iter().map(|&r| r as i32), &x_tm.device());
        Some(to_f32(head.as_ref()?.forward(norm.forward(x_tm.select(0, rows)).0)))
    }
}

impl<B: Backend> Chunk<B> for DecoderChunk<B> {
    type Kept = DecoderKept<B>;

    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: Slice<'_>) -> Tensor<B, 2> {
        let x_tm = self.start(inputs, &on);
        let geometry = self.geometry(&on, &x_tm.device());
        let x_tm = layer::forward(&self.layers, x_tm, &geometry);
        match &self.end {
            Some(end) => end.forward(x_tm, on.microbatch).0,
            None => x_tm,
        }
    }

    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, DecoderKept<B>) {
        let rows = inputs.iter().map(|x| x.dims()[0]).collect();
        let x_tm = self.start(inputs, &on);
        let geometry = self.geometry(&on, &x_tm.device());
        let (x_tm, layers) = layer::forward_kept(&self.layers, x_tm, geometry, strategies);
        let mut kept = DecoderKept { inputs: rows, layers, norm: None, log_p_rv: None };
        let Some(end) = &self.end else { return (x_tm, kept) };
        let (y, norm, log_p_rv) = end.forward(x_tm, on.microbatch);
        (kept.norm, kept.log_p_rv) = (Some(norm), log_p_rv);
        (y, kept)
    }

    fn backward(
        &self,
        kept: DecoderKept<B>,
        dy: Tensor<B, 2>,
        on: Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let dy_tm = match (&self.end, kept.norm) {
            (Some(end), Some(norm)) => {
                end.backward((norm, kept.log_p_rv), dy, on.microbatch, gradients)
            }
            _ => dy,
        };
        let dx_tm = layer::backward(&self.layers, kept.layers, dy_tm, gradients);
        match &self.embed {
            Some(embed) => embed.splice_backward(&kept.inputs, dx_tm, &on, gradients),
            None => vec![dx_tm],
        }
    }

    fn kept_bytes(kept: &DecoderKept<B>) -> u64 {
        kept.layers.bytes()
            + kept.norm.as_ref().map_or(0, NormKept::bytes)
            + kept.log_p_rv.as_ref().map_or(0, bytes_of)
    }

    fn has_loss(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.head.is_some())
    }
}

impl<B: Backend> Embedding<B> {
    /// Token embeddings, with those of the images in the places of their tokens: `[t, m]`.
    fn splice(&self, images: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        let tokens = &on.microbatch.tokens[on.microbatch.text_rows(&on.instances)];
        let table = self.weight.val();
        let device = table.device();
        let length = tokens.len() as i32;
        let tokens = indices(tokens.iter().map(|&t| t as i32), &device);
        let text_tm = table.select(0, tokens);
        if images.is_empty() {
            return text_tm;
        }
        let images = Tensor::cat(images, 0);
        let mut source: Vec<i32> = (0..length).collect();
        for (i, place) in image_places(on.microbatch, images.dims()[0]).into_iter().enumerate() {
            source[place] = length + i as i32;
        }
        Tensor::cat(vec![text_tm, images], 0).select(0, indices(source.into_iter(), &device))
    }

    /// The gradients of the images, input by input; adds that of the table.
    fn splice_backward(
        &self,
        inputs: &[usize],
        dx_tm: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let device = dx_tm.device();
        let tokens = &on.microbatch.tokens[on.microbatch.text_rows(&on.instances)];
        let places = image_places(on.microbatch, inputs.iter().sum());
        let mut is_text = vec![true; tokens.len()];
        places.iter().for_each(|&place| is_text[place] = false);
        let rows: Vec<usize> = (0..is_text.len()).filter(|&i| is_text[i]).collect();
        if !rows.is_empty() {
            let tokens = indices(rows.iter().map(|&i| tokens[i] as i32), &device);
            let rows = indices(rows.iter().map(|&i| i as i32), &device);
            let (values, table) = (dx_tm.clone(), self.weight.val());
            gradients.add(&self.weight, move || {
                let values = to_f32(values.select(0, rows));
                let zeros = Tensor::zeros(table.dims(), (&table.device(), DType::F32));
                zeros.select_assign(0, tokens, values, IndexingUpdateOp::Add)
            });
        }
        let mut places = places.into_iter().map(|place| place as i32);
        let of_input = |&rows: &usize| {
            let rows = indices(places.by_ref().take(rows), &device);
            dx_tm.clone().select(0, rows)
        };
        inputs.iter().map(of_input).collect()
    }
}

impl<B: Backend> End<B> {
    /// The normed rows; where there is a head, the sum of the cross-entropies of the trained positions, `[1, 1]`, for which
    /// only their rows go through norm and head.
    fn forward(
        &self,
        x_tm: Tensor<B, 2>,
        microbatch: &Microbatch,
    ) -> (Tensor<B, 2>, NormKept<B>, Option<Tensor<B, 2>>) {
        let Some(head) = &self.head else {
            let (y_tm, norm) = self.norm.forward(x_tm);
            return (y_tm, norm, None);
        };
        let trained = Trained::of(microbatch, &x_tm.device());
        let (x_rm, norm) = self.norm.forward(x_tm.select(0, trained.rows));
        let log_p_rv = log_softmax(to_f32(head.forward(x_rm)), 1);
        let log_p_r1 = log_p_rv.clone().gather(1, trained.targets);
        let loss = log_p_r1.sum().mul_scalar(-trained.weight).reshape([1, 1]);
        (loss, norm, Some(log_p_rv))
    }

    /// The gradient of `x_tm`.
    fn backward(
        &self,
        (norm, log_p_rv): (NormKept<B>, Option<Tensor<B, 2>>),
        dy: Tensor<B, 2>,
        microbatch: &Microbatch,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let (Some(head), Some(log_p_rv)) = (&self.head, log_p_rv) else {
            return self.norm.backward(norm, dy, gradients);
        };
        let device = dy.device();
        let trained = Trained::of(microbatch, &device);
        // d loss / d logits = p - 1 at the target, p elsewhere.
        let minus_one = Tensor::full(trained.targets.dims(), -1.0, &device);
        let p_rv = log_p_rv.exp();
        let d_rv = p_rv.scatter(1, trained.targets, minus_one, IndexingUpdateOp::Add);
        let d_rv = cast(d_rv * (dy * trained.weight), head.weight.val().dtype());
        let d_rm = linear_backward(head, self.norm.output(&norm), d_rv, gradients);
        let d_rm = self.norm.backward(norm, d_rm, gradients);
        let shape = [microbatch.tokens.len(), d_rm.dims()[1]];
        let zeros = Tensor::zeros(shape, (&device, d_rm.dtype()));
        zeros.select_assign(0, trained.rows, d_rm, IndexingUpdateOp::Add)
    }
}

/// The positions that have a loss.
struct Trained<B: Backend> {
    /// `[r]`
    rows: Tensor<B, 1, Int>,
    /// `[r, 1]`
    targets: Tensor<B, 2, Int>,
    weight: f64,
}

impl<B: Backend> Trained<B> {
    fn of(microbatch: &Microbatch, device: &B::Device) -> Self {
        let trained: Vec<usize> =
            (0..microbatch.loss_mask.len()).filter(|&i| microbatch.loss_mask[i]).collect();
        // A sequence without trained tokens still has a loss, of weight zero.
        let (rows, weight) = if trained.is_empty() { (vec![0], 0.0) } else { (trained, 1.0) };
        let targets = indices(rows.iter().map(|&i| microbatch.targets[i] as i32), device);
        let targets = targets.reshape([rows.len(), 1]);
        Self { rows: indices(rows.iter().map(|&i| i as i32), device), targets, weight }
    }
}

/// The place of every row of the image embeddings in the sequence.
fn image_places(microbatch: &Microbatch, rows: usize) -> Vec<usize> {
    let per_image = rows / microbatch.images.len().max(1);
    let of_image = |&offset: &u32| offset as usize..offset as usize + per_image;
    microbatch.image_offsets.iter().flat_map(of_image).collect()
}

fn indices<B: Backend>(values: impl Iterator<Item = i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let values: Vec<i32> = values.collect();
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
