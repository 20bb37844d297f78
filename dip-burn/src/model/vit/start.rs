//! The start of the vision encoder: pixels to embedded patches.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::VitSpec;

use super::VitChunk;
use crate::batch::{Image, View, ViewGrid};
use crate::model::block::linear::linear_backward_weights;
use crate::model::block::norm::NormKept;
use crate::model::{Gradients, Slice, cast};

/// The sizes of a patch. Patches that are merged into one token follow each other.
#[derive(Module, Debug, Clone, Copy)]
pub struct PatchShape {
    patch_px: usize,
    merge: usize,
    /// Frames of pixels in a patch. A still image is repeated in all of them.
    frames: usize,
}

impl PatchShape {
    /// The patches of an encoder.
    pub fn of(vit: &VitSpec) -> Self {
        Self {
            patch_px: vit.patch_px as usize,
            merge: vit.merge as usize,
            frames: vit.tower.frames() as usize,
        }
    }

    /// Patches that become one token.
    pub(super) fn merged(&self) -> usize {
        self.merge * self.merge
    }

    /// Row and column of every patch of a frame, in the order of the sequence.
    pub(super) fn places(&self, grid: &ViewGrid) -> Vec<(u32, u32)> {
        grid.places(self.merge as u32)
    }

    /// Values of one patch, `c`.
    fn values(&self) -> usize {
        3 * self.frames * self.patch_px * self.patch_px
    }

    /// Adds the values of every patch of a view, `[patches, c]` with c in the order channel, frame, row, column.
    pub fn extend(&self, values: &mut Vec<f32>, view: &View) {
        let (px, grid) = (self.patch_px, &view.grid);
        let (height, width) = (grid.rows as usize * px, grid.columns as usize * px);
        let frame_values = 3 * height * width;
        let is_still = view.pixels.len() == frame_values;
        let places = self.places(grid);
        for frame in 0..grid.frames as usize {
            for &(row, column) in &places {
                let (top, left) = (row as usize * px, column as usize * px);
                for channel in 0..3 {
                    for inner in 0..self.frames {
                        let at = if is_still { 0 } else { frame * self.frames + inner };
                        let channel = at * frame_values + channel * height * width;
                        for y in top..top + px {
                            let start = channel + y * width + left;
                            values.extend_from_slice(&view.pixels[start..start + px]);
                        }
                    }
                }
            }
        }
    }
}

impl<B: Backend> VitChunk<B> {
    /// The patches of all images, `[q, c]`, in the type of `like`.
    fn patches(&self, images: &[Image], like: &Tensor<B, 2>) -> Tensor<B, 2> {
        let views = || images.iter().flat_map(|image| &image.views);
        let rows: usize = views().map(|view| view.grid.patches()).sum();
        let mut values = Vec::with_capacity(rows * self.patch.values());
        views().for_each(|view| self.patch.extend(&mut values, view));
        let shape = [rows, self.patch.values()];
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

pub(super) fn images<'a>(on: &Slice<'a>) -> &'a [Image] {
    &on.microbatch.images[on.instances.start as usize..on.instances.end as usize]
}

/// The grid of every sequence of patches that attend to each other: one for each frame of each view.
pub(super) fn sequences(on: &Slice<'_>) -> Vec<ViewGrid> {
    let views = images(on).iter().flat_map(|image| &image.views);
    let frames = views.map(|view| (ViewGrid { frames: 1, ..view.grid }, view.grid.frames));
    frames.flat_map(|(grid, frames)| std::iter::repeat_n(grid, frames as usize)).collect()
}
