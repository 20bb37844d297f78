//! The vision encoder: of the Qwen2-VL kind, or of the CLIP kind with what `stem` holds.
//!
//! Shape legend: n images, p rows of an image (its patches, and a class token where there is one), r = n * p, c values of a patch, m width, t tokens of an image after merging.

mod stem;

use std::ops::Range;

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::{LayerStrategy, ModuleSpec, VitSpec};

use crate::batch::Image;
use crate::model::block::attention::{Attention, Geometry};
use crate::model::block::core::Heads;
use crate::model::block::feed_forward::FeedForward;
use crate::model::block::layer::{self, Layer, LayersKept};
use crate::model::block::linear::{Linear, linear_backward_weights};
use crate::model::block::merger::{Merger, MergerKept};
use crate::model::block::norm::{Norm, NormKept};
use crate::model::block::rotary::Rotary;
use crate::model::gradients::Gradients;
use crate::model::{Chunk, Init, ModelError, Slice, cast};
use stem::{Stem, without_class, without_class_backward};

/// Consecutive layers of the encoder, with its patch embedding in the first chunk and its adapter in the last.
#[derive(Module, Debug)]
pub struct VitChunk<B: Backend> {
    patch_embed: Option<Linear<B>>,
    /// Where positions are learned.
    stem: Option<Stem<B>>,
    layers: Vec<Layer<B>>,
    merger: Option<Merger<B>>,
    grid: PatchGrid,
    heads: Heads,
    /// Base of the angles of rotary positions; none where positions are learned.
    #[module(skip)]
    rope_theta: Option<f64>,
    /// Whether a class token goes before the patches of an image.
    #[module(skip)]
    class_token: bool,
    /// Mean and standard deviation of each colour that the encoder wants; none for pixels from -1 to 1.
    #[module(skip)]
    pixel_statistics: Option<[(f32, f32); 3]>,
}

/// How an image is cut into patches. Patches that are merged into one token stand next to each other.
#[derive(Module, Debug, Clone, Copy)]
pub struct PatchGrid {
    image_px: usize,
    patch_px: usize,
    merge: usize,
    /// Frames of a patch; a still image is all of them.
    frames: usize,
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

    /// The values of every patch of an image `[3, image_px, image_px]`, `[p * c]` with c in the order channel, frame, row,
    /// column.
    pub fn patches(&self, image: &Image) -> Vec<f32> {
        let (px, size) = (self.patch_px, self.image_px);
        let mut values = Vec::with_capacity(3 * self.frames * size * size);
        for (row, column) in self.places() {
            let (top, left) = (row as usize * px, column as usize * px);
            for channel in 0..3 {
                for y in (0..self.frames).flat_map(|_| top..top + px) {
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
        let Some(&VitSpec { image_px, patch_px, merge, tower }) = spec.kind.get() else {
            return Err(ModelError::Kind { module: spec.name.clone(), kind: "not a vit" });
        };
        if !tower.learned_positions() && !spec.head_dim().is_multiple_of(4) {
            return Err(ModelError::Field {
                module: spec.name.clone(),
                field: "head_dim",
                value: spec.head_dim().to_string(),
                limit: "a multiple of 4, for rows and columns turn half of each head".into(),
            });
        }
        let (first, last) = (layers.start == 0, layers.end == spec.layers);
        let width = spec.hidden as usize;
        let channels = 3 * (tower.frames() * patch_px * patch_px) as usize;
        let norm = || Norm::layer(width, init).with_epsilon(spec.options.norm_epsilon);
        let layer = |i: u32| {
            let path = format!("layers.{i}");
            Layer {
                attention_norm: norm(),
                attention: Attention::init(spec, &path, init),
                feed_forward_norm: norm(),
                feed_forward: FeedForward::init(spec, &path, true, init),
            }
        };
        Ok(Self {
            patch_embed: first.then(|| {
                let bias = tower.patch_bias();
                init.linear("patch_embed", channels, width, bias, (1.0 / channels as f64).sqrt())
            }),
            stem: (first && tower.learned_positions()).then(|| Stem::init(spec, init)),
            layers: layers.map(layer).collect(),
            merger: last.then(|| Merger::init(spec, output, init)),
            grid: PatchGrid {
                image_px: image_px as usize,
                patch_px: patch_px as usize,
                merge: merge as usize,
                frames: tower.frames() as usize,
            },
            heads: Heads::of(spec),
            rope_theta: (!tower.learned_positions()).then_some(spec.options.rope.theta),
            class_token: tower.class_token(),
            pixel_statistics: tower.pixel_statistics(),
        })
    }

    /// The patches of all images, `[r, c]`, in the type of `like`.
    fn patches(&self, images: &[Image], like: &Tensor<B, 2>) -> Tensor<B, 2> {
        let patches = |image: &Image| match &self.pixel_statistics {
            Some(statistics) => self.grid.patches(&normalised(image, statistics)),
            None => self.grid.patches(image),
        };
        let values: Vec<f32> = images.iter().flat_map(patches).collect();
        let rows = images.len() * self.grid.side() * self.grid.side();
        let shape = [rows, values.len() / rows];
        cast(Tensor::from_data(TensorData::new(values, shape), &like.device()), like.dtype())
    }

    /// What the layers start from, `[r, m]`, and what the backward of the stem needs.
    fn start(&self, mut inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Start<B> {
        match (&self.patch_embed, inputs.pop()) {
            (Some(embed), _) => {
                let x = embed.forward(self.patches(images(on), &embed.weight.val()));
                match &self.stem {
                    Some(stem) => stem.forward(x),
                    None => (x, None),
                }
            }
            (None, Some(x_rm)) => (x_rm, None),
            (None, None) => unreachable!("the interpreter gives a later chunk its input"),
        }
    }

    /// Where the rows of `n` images are.
    fn geometry(&self, n: usize, x_rm: &Tensor<B, 2>) -> Geometry<B> {
        let Some(theta) = self.rope_theta else {
            return Geometry::unturned(n, x_rm.dims()[0] / n);
        };
        let places = self.grid.places();
        let rotary = Rotary::grid(&places, self.heads.head_dim, theta, &x_rm.device());
        Geometry::full(self.heads, &rotary, n)
    }

    /// What the adapter reads.
    fn features(&self, x_rm: Tensor<B, 2>, n: usize) -> Tensor<B, 2> {
        if self.class_token { without_class(x_rm, n) } else { x_rm }
    }
}

/// The first rows, and what the backward of the stem needs.
type Start<B> = (Tensor<B, 2>, Option<NormKept<B>>);

/// The image with each colour at the mean and deviation that an encoder wants.
fn normalised(image: &Image, statistics: &[(f32, f32); 3]) -> Image {
    let colours = image.pixels.chunks_exact(image.pixels.len() / 3).zip(statistics);
    let of_colour = |(values, (mean, deviation)): (&[f32], &(f32, f32))| -> Vec<f32> {
        values.iter().map(|v| ((v + 1.0) / 2.0 - mean) / deviation).collect()
    };
    Image { pixels: colours.flat_map(of_colour).collect() }
}

fn images<'a>(on: &Slice<'a>) -> &'a [Image] {
    &on.microbatch.images[on.instances.start as usize..on.instances.end as usize]
}

/// What the backward of a chunk needs.
pub struct VitKept<B: Backend> {
    stem: Option<NormKept<B>>,
    layers: LayersKept<B, Layer<B>>,
    merger: Option<MergerKept<B>>,
}

impl<B: Backend> Chunk<B> for VitChunk<B> {
    type Kept = VitKept<B>;

    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: Slice<'_>) -> Tensor<B, 2> {
        let (x_rm, _) = self.start(inputs, &on);
        let n = images(&on).len();
        let geometry = self.geometry(n, &x_rm);
        let x_rm = layer::forward(&self.layers, x_rm, &geometry);
        match &self.merger {
            Some(merger) => merger.forward(self.features(x_rm, n), self.grid.merged()).0,
            None => x_rm,
        }
    }

    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, VitKept<B>) {
        let (x_rm, stem) = self.start(inputs, &on);
        let n = images(&on).len();
        let geometry = self.geometry(n, &x_rm);
        let (x_rm, layers) = layer::forward_kept(&self.layers, x_rm, geometry, strategies);
        let Some(merger) = &self.merger else {
            return (x_rm, VitKept { stem, layers, merger: None });
        };
        let (y, kept) = merger.forward(self.features(x_rm, n), self.grid.merged());
        (y, VitKept { stem, layers, merger: Some(kept) })
    }

    fn backward(
        &self,
        kept: VitKept<B>,
        dy: Tensor<B, 2>,
        on: Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let dy_rm = match (&self.merger, kept.merger) {
            (Some(merger), Some(kept)) => {
                let d = merger.backward(kept, dy, gradients);
                if self.class_token { without_class_backward(d, images(&on).len()) } else { d }
            }
            _ => dy,
        };
        let dx_rm = layer::backward(&self.layers, kept.layers, dy_rm, gradients);
        let Some(embed) = &self.patch_embed else { return vec![dx_rm] };
        let dx = match &self.stem {
            Some(stem) => stem.backward(kept.stem, dx_rm, gradients),
            None => dx_rm,
        };
        let patches = self.patches(images(&on), &dx);
        linear_backward_weights(embed, patches, &dx, gradients);
        Vec::new()
    }

    fn kept_bytes(kept: &VitKept<B>) -> u64 {
        let norm = |norm: &Option<NormKept<B>>| norm.as_ref().map_or(0, NormKept::bytes);
        norm(&kept.stem) + kept.layers.bytes() + kept.merger.as_ref().map_or(0, MergerKept::bytes)
    }
}
