//! The start of the vision encoder: pixels to embedded patches.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::VitSpec;

use super::VitChunk;
use crate::batch::Image;
use crate::model::block::linear::linear_backward_weights;
use crate::model::block::norm::NormKept;
use crate::model::{Gradients, Slice, cast};

/// The patches of an image. Patches that are merged into one token follow each other.
#[derive(Module, Debug, Clone, Copy)]
pub struct PatchGrid {
    image_px: usize,
    patch_px: usize,
    merge: usize,
    /// Frames of a patch. A still image is repeated in all of them.
    frames: usize,
}

impl PatchGrid {
    /// The patches of an encoder.
    pub(super) fn of(vit: &VitSpec) -> Self {
        Self {
            image_px: vit.image_px as usize,
            patch_px: vit.patch_px as usize,
            merge: vit.merge as usize,
            frames: vit.tower.frames() as usize,
        }
    }

    fn side(&self) -> usize {
        self.image_px / self.patch_px
    }

    /// Patches that become one token.
    pub(super) fn merged(&self) -> usize {
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

    /// Returns the input rows of the layers, `[r, m]`, and the tensors that the backward of the stem needs.
    pub(super) fn start(
        &self,
        mut inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
    ) -> (Tensor<B, 2>, Option<NormKept<B>>) {
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

    /// The gradients of the inputs from the gradient of [`start`](Self::start): none in a first chunk, whose pixels take no
    /// gradient.
    pub(super) fn start_backward(
        &self,
        stem_kept: Option<NormKept<B>>,
        dx_rm: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let Some(embed) = &self.patch_embed else { return vec![dx_rm] };
        let dx = match &self.stem {
            Some(stem) => stem.backward(stem_kept, dx_rm, gradients),
            None => dx_rm,
        };
        let patches = self.patches(images(on), &dx);
        linear_backward_weights(embed, patches, &dx, gradients);
        Vec::new()
    }
}

/// Normalises each colour of the image by the mean and standard deviation of the encoder's training data.
fn normalised(image: &Image, statistics: &[(f32, f32); 3]) -> Image {
    let colours = image.pixels.chunks_exact(image.pixels.len() / 3).zip(statistics);
    let of_colour = |(values, (mean, deviation)): (&[f32], &(f32, f32))| -> Vec<f32> {
        values.iter().map(|v| ((v + 1.0) / 2.0 - mean) / deviation).collect()
    };
    Image { pixels: colours.flat_map(of_colour).collect() }
}

pub(super) fn images<'a>(on: &Slice<'a>) -> &'a [Image] {
    &on.microbatch.images[on.instances.start as usize..on.instances.end as usize]
}
