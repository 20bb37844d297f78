//! The vision encoder in the Qwen2-VL manner.
//!
//! Shape legend: n images, p patches of an image, r = n * p rows, c values of a patch, m width, t tokens of an image after merging.

use std::ops::Range;

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::gelu;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::{LayerStrategy, ModuleKind, ModuleSpec};

use super::attention::{Attention, Geometry};
use super::core::Heads;
use super::feed_forward::{FeedForward, gelu_backward};
use super::gradients::{Gradients, bytes_of, linear_backward, linear_backward_weights};
use super::layer::{self, Layer, LayersKept};
use super::norm::{Norm, NormKept};
use super::rotary::Rotary;
use super::{Chunk, Init, ModelError, Slice, cast};
use crate::batch::Image;

/// Consecutive layers of the encoder, with its patch embedding in the first chunk and its adapter in the last.
#[derive(Module, Debug)]
pub struct VitChunk<B: Backend> {
    patch_embed: Option<Linear<B>>,
    layers: Vec<Layer<B>>,
    merger: Option<Merger<B>>,
    grid: PatchGrid,
    heads: Heads,
}

/// The adapter: each square of neighbouring patches becomes one token of the backbone.
#[derive(Module, Debug)]
pub struct Merger<B: Backend> {
    norm: Norm<B>,
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

    /// Patches that become one token.
    fn merged(&self) -> usize {
        self.merge * self.merge
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
            Layer {
                attention_norm: Norm::layer(width, init),
                attention: Attention::init(spec, &path, true, init),
                feed_forward_norm: Norm::layer(width, init),
                feed_forward: FeedForward::init(spec, &path, true, init),
            }
        };
        let std = |input: usize| (1.0 / input as f64).sqrt();
        Ok(Self {
            patch_embed: first
                .then(|| init.linear("patch_embed", channels, width, true, std(channels))),
            layers: layers.map(layer).collect(),
            merger: last.then(|| Merger {
                norm: Norm::layer(width, init),
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

    /// The patches of all images, `[r, c]`, in the type of `like`.
    fn patches(&self, images: &[Image], like: &Tensor<B, 2>) -> Tensor<B, 2> {
        let values: Vec<f32> = images.iter().flat_map(|i| self.grid.patches(i)).collect();
        let rows = images.len() * self.grid.side() * self.grid.side();
        let shape = [rows, values.len() / rows];
        cast(Tensor::from_data(TensorData::new(values, shape), &like.device()), like.dtype())
    }

    /// What the layers start from, `[r, m]`, and where they are.
    fn start(&self, mut inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> (Tensor<B, 2>, Geometry<B>) {
        let x_rm = match (&self.patch_embed, inputs.pop()) {
            (Some(embed), _) => embed.forward(self.patches(images(on), &embed.weight.val())),
            (None, Some(x_rm)) => x_rm,
            (None, None) => unreachable!("the interpreter gives a later chunk its input"),
        };
        let rotary = Rotary::grid(&self.grid.places(), self.heads.head_dim, &x_rm.device());
        let geometry = Geometry::full(self.heads, &rotary, images(on).len());
        (x_rm, geometry)
    }
}

fn images<'a>(on: &Slice<'a>) -> &'a [Image] {
    &on.microbatch.images[on.instances.start as usize..on.instances.end as usize]
}

/// What the backward of a chunk needs.
pub struct VitKept<B: Backend> {
    layers: LayersKept<B, Layer<B>>,
    merger: Option<MergerKept<B>>,
}

impl<B: Backend> Chunk<B> for VitChunk<B> {
    type Kept = VitKept<B>;

    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: Slice<'_>) -> Tensor<B, 2> {
        let (x_rm, geometry) = self.start(inputs, &on);
        let x_rm = layer::forward(&self.layers, x_rm, &geometry);
        match &self.merger {
            Some(merger) => merger.forward(x_rm, self.grid.merged()).0,
            None => x_rm,
        }
    }

    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, VitKept<B>) {
        let (x_rm, geometry) = self.start(inputs, &on);
        let (x_rm, layers) = layer::forward_kept(&self.layers, x_rm, geometry, strategies);
        match &self.merger {
            Some(merger) => {
                let (y, kept) = merger.forward(x_rm, self.grid.merged());
                (y, VitKept { layers, merger: Some(kept) })
            }
            None => (x_rm, VitKept { layers, merger: None }),
        }
    }

    fn backward(
        &self,
        kept: VitKept<B>,
        dy: Tensor<B, 2>,
        on: Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let dy_rm = match (&self.merger, kept.merger) {
            (Some(merger), Some(kept)) => merger.backward(kept, dy, gradients),
            _ => dy,
        };
        let dx_rm = layer::backward(&self.layers, kept.layers, dy_rm, gradients);
        match &self.patch_embed {
            Some(embed) => {
                let patches = self.patches(images(&on), &dx_rm);
                linear_backward_weights(embed, patches, &dx_rm, gradients);
                Vec::new()
            }
            None => vec![dx_rm],
        }
    }

    fn kept_bytes(kept: &VitKept<B>) -> u64 {
        let merger = |m: &MergerKept<B>| m.norm.bytes() + bytes_of(&m.inner);
        kept.layers.bytes() + kept.merger.as_ref().map_or(0, merger)
    }
}

/// What the backward of the adapter needs.
struct MergerKept<B: Backend> {
    norm: NormKept<B>,
    /// Before the activation.
    inner: Tensor<B, 2>,
}

impl<B: Backend> Merger<B> {
    /// `[n * p, m]` to `[n * t, output]`: `patches` neighbours side by side, then two linear layers.
    fn forward(&self, x_rm: Tensor<B, 2>, patches: usize) -> (Tensor<B, 2>, MergerKept<B>) {
        let [rows, m] = x_rm.dims();
        let (normed, norm) = self.norm.forward(x_rm);
        let inner = self.fc1.forward(normed.reshape([rows / patches, patches * m]));
        (self.fc2.forward(gelu(inner.clone())), MergerKept { norm, inner })
    }

    fn backward(
        &self,
        kept: MergerKept<B>,
        dy: Tensor<B, 2>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let MergerKept { norm, inner } = kept;
        let d_inner = linear_backward(&self.fc2, gelu(inner.clone()), dy, gradients);
        let normed = self.norm.output(&norm);
        let shape = normed.dims();
        let merged = [inner.dims()[0], shape[0] * shape[1] / inner.dims()[0]];
        let d_inner = gelu_backward(inner, d_inner);
        let d = linear_backward(&self.fc1, normed.reshape(merged), d_inner, gradients);
        self.norm.backward(norm, d.reshape(shape), gradients)
    }
}
