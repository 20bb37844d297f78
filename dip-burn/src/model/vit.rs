//! The vision encoder in the Qwen2-VL manner.
//!
//! Shape legend: n images, p patches of an image, r = n * p rows, c values of a patch, m width, t tokens of an image after merging.

use std::ops::Range;

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::activation::gelu;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::{ModuleKind, ModuleSpec};

use super::attention::{Attention, Geometry};
use super::core::Heads;
use super::feed_forward::FeedForward;
use super::rotary::Rotary;
use super::{Chunk, Init, ModelError};
use crate::batch::{Image, Microbatch};

/// Consecutive layers of the encoder, with its patch embedding in the first chunk and its adapter in the last.
#[derive(Module, Debug)]
pub struct VitChunk<B: Backend> {
    patch_embed: Option<Linear<B>>,
    layers: Vec<VitLayer<B>>,
    merger: Option<Merger<B>>,
    grid: PatchGrid,
    heads: Heads,
}

/// One pre-norm transformer layer.
#[derive(Module, Debug)]
pub struct VitLayer<B: Backend> {
    attention_norm: LayerNorm<B>,
    attention: Attention<B>,
    feed_forward_norm: LayerNorm<B>,
    feed_forward: FeedForward<B>,
}

/// The adapter: each square of neighbouring patches becomes one token of the backbone.
#[derive(Module, Debug)]
pub struct Merger<B: Backend> {
    norm: LayerNorm<B>,
    fc1: Linear<B>,
    fc2: Linear<B>,
}

/// How an image is cut into patches. Patches that are merged into one token stand next to each other.
#[derive(Module, Debug, Clone, Copy)]
pub struct PatchGrid {
    image_px: usize,
    patch_px: usize,
    merge: usize,
}

impl PatchGrid {
    fn side(&self) -> usize {
        self.image_px / self.patch_px
    }

    /// Row and column of every patch, in the order of the sequence.
    pub fn places(&self) -> Vec<(u32, u32)> {
        let (blocks, merge) = (self.side() / self.merge, self.merge);
        let mut places = Vec::with_capacity(self.side() * self.side());
        for block in 0..blocks * blocks {
            for inner in 0..merge * merge {
                let row = block / blocks * merge + inner / merge;
                let column = block % blocks * merge + inner % merge;
                places.push((row as u32, column as u32));
            }
        }
        places
    }

    /// The values of every patch of an image `[3, image_px, image_px]`, `[p * c]` with c in the order channel, row, column.
    pub fn patches(&self, image: &Image) -> Vec<f32> {
        let (px, size) = (self.patch_px, self.image_px);
        let mut values = Vec::with_capacity(3 * size * size);
        for (row, column) in self.places() {
            let (top, left) = (row as usize * px, column as usize * px);
            for channel in 0..3 {
                for y in top..top + px {
                    let start = (channel * size + y) * size + left;
                    values.extend_from_slice(&image.pixels[start..start + px]);
                }
            }
        }
        values
    }
}

impl<B: Backend> VitChunk<B> {
    /// The layers `layers` of the encoder `spec`, whose output is `output` wide.
    ///
    /// # Errors
    /// [`ModelError`] where the module is no encoder, or its heads cannot be turned.
    pub fn init(
        spec: &ModuleSpec,
        layers: Range<u32>,
        output: usize,
        init: &Init<'_, B>,
    ) -> Result<Self, ModelError> {
        let ModuleKind::Vit { image_px, patch_px, merge } = spec.kind else {
            return Err(ModelError::Kind { module: spec.name.clone(), kind: "not a vit" });
        };
        if !spec.head_dim().is_multiple_of(4) {
            return Err(ModelError::Field {
                module: spec.name.clone(),
                field: "head_dim",
                value: spec.head_dim().to_string(),
                limit: "a multiple of 4, for rows and columns turn half of each head".into(),
            });
        }
        let (first, last) = (layers.start == 0, layers.end == spec.layers);
        let (width, merge_px) = (spec.hidden as usize, merge as usize);
        let channels = 3 * (patch_px * patch_px) as usize;
        let merged = width * merge_px * merge_px;
        let inner = spec.adapter_width() as usize;
        let layer = |i: u32| {
            let path = format!("layers.{i}");
            VitLayer {
                attention_norm: init.layer_norm(width),
                attention: Attention::init(spec, &path, true, init),
                feed_forward_norm: init.layer_norm(width),
                feed_forward: FeedForward::init(spec, &path, true, init),
            }
        };
        let std = |input: usize| (1.0 / input as f64).sqrt();
        Ok(Self {
            patch_embed: first
                .then(|| init.linear("patch_embed", channels, width, true, std(channels))),
            layers: layers.map(layer).collect(),
            merger: last.then(|| Merger {
                norm: init.layer_norm(width),
                fc1: init.linear("merger.fc1", merged, inner, true, std(merged)),
                fc2: init.linear("merger.fc2", inner, output, true, 0.02),
            }),
            grid: PatchGrid {
                image_px: image_px as usize,
                patch_px: patch_px as usize,
                merge: merge_px,
            },
            heads: Heads::of(spec),
        })
    }

    /// The patches of all images, `[n * p, m]`.
    fn embed(&self, patch_embed: &Linear<B>, images: &[Image]) -> Tensor<B, 2> {
        let device = patch_embed.weight.device();
        let values: Vec<f32> = images.iter().flat_map(|i| self.grid.patches(i)).collect();
        let rows = images.len() * self.grid.side() * self.grid.side();
        let shape = [rows, values.len() / rows];
        patch_embed.forward(Tensor::from_data(TensorData::new(values, shape), &device))
    }
}

impl<B: Backend> Chunk<B> for VitChunk<B> {
    fn forward(
        &self,
        mut inputs: Vec<Tensor<B, 2>>,
        microbatch: &Microbatch,
        slice: Range<u32>,
    ) -> Tensor<B, 2> {
        let images = &microbatch.images[slice.start as usize..slice.end as usize];
        let x_rm = match (&self.patch_embed, inputs.pop()) {
            (Some(patch_embed), _) => self.embed(patch_embed, images),
            (None, Some(x_rm)) => x_rm,
            (None, None) => unreachable!("the interpreter gives a later chunk its input"),
        };
        let rotary = Rotary::grid(&self.grid.places(), self.heads.head_dim, &x_rm.device());
        let geometry = Geometry::full(self.heads, &rotary, images.len());
        let x_rm = self.layers.iter().fold(x_rm, |x_rm, layer| layer.forward(x_rm, &geometry));
        match &self.merger {
            Some(merger) => merger.forward(x_rm, self.grid.merge * self.grid.merge),
            None => x_rm,
        }
    }
}

impl<B: Backend> VitLayer<B> {
    fn forward(&self, x_rm: Tensor<B, 2>, geometry: &Geometry<B>) -> Tensor<B, 2> {
        let normed = self.attention_norm.forward(x_rm.clone());
        let x_rm = x_rm + self.attention.forward(normed, geometry);
        x_rm.clone() + self.feed_forward.forward(self.feed_forward_norm.forward(x_rm))
    }
}

impl<B: Backend> Merger<B> {
    /// `[n * p, m]` to `[n * t, output]`: `patches` neighbours side by side, then two linear layers.
    fn forward(&self, x_rm: Tensor<B, 2>, patches: usize) -> Tensor<B, 2> {
        let [rows, m] = x_rm.dims();
        let merged = self.norm.forward(x_rm).reshape([rows / patches, patches * m]);
        self.fc2.forward(gelu(self.fc1.forward(merged)))
    }
}
