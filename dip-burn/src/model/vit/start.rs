//! The start of the vision encoder: pixels to embedded patches.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::VitSpec;

use super::frames::{Frames, images};
use super::{Stream, VitChunk};
use crate::batch::View;
use crate::model::block::columns;
use crate::model::block::linear::linear_backward_weights;
use crate::model::block::norm::NormKept;
use crate::model::{Gradients, Slice, cast};
use crate::uploads::floats;

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

    /// Side of the square of patches that becomes one token.
    pub(super) fn merge(&self) -> u32 {
        self.merge as u32
    }

    /// Patches that become one token.
    pub(super) fn merged(&self) -> usize {
        self.merge * self.merge
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
        let places = grid.places(self.merge());
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
    /// The patches of all images in the order of the rows, `[q, c]`, in the type of `like`.
    fn patches(&self, frames: &Frames, on: &Slice<'_>, like: &Tensor<B, 2>) -> Tensor<B, 2> {
        let views = || images(on).iter().flat_map(|image| &image.views);
        let rows: usize = views().map(|view| view.grid.patches()).sum();
        let mut values = Vec::with_capacity(rows * self.patch.values());
        views().for_each(|view| self.patch.extend(&mut values, view));
        if frames.order.is_some() {
            values = frames.in_order(&values, self.patch.merged() * self.patch.values());
        }
        let shape = [rows, self.patch.values()];
        cast(floats(values, shape, &like.device()), like.dtype())
    }

    /// Returns the inputs of the layers, and the tensors that the backward of the stem needs.
    pub(super) fn start(
        &self,
        mut inputs: Vec<Tensor<B, 2>>,
        frames: &Frames,
        on: &Slice<'_>,
    ) -> (Stream<B>, Option<NormKept<B>>) {
        let Some(embed) = &self.patch_embed else {
            let x = inputs.pop().expect("the interpreter gives a later chunk its input");
            return (self.received(x), None);
        };
        let x = embed.forward(self.patches(frames, on, &embed.weight.val()));
        let (x_rm, kept) = match (&self.stem, &self.positions) {
            (Some(stem), _) => stem.forward(x),
            (None, Some(table)) => (table.forward(x, &self.places(frames)), None),
            (None, None) => (x, None),
        };
        (Stream { x_rm, features: Vec::new() }, kept)
    }

    /// The gradients of the inputs from the gradient of [`start`](Self::start): none in a first chunk, whose pixels take no
    /// gradient.
    pub(super) fn start_backward(
        &self,
        stem_kept: Option<NormKept<B>>,
        d: Stream<B>,
        (frames, on): (&Frames, &Slice<'_>),
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let Some(embed) = &self.patch_embed else { return vec![self.passed_on(d)] };
        let dx = match &self.stem {
            Some(stem) => stem.backward(stem_kept, d.x_rm, gradients),
            None => d.x_rm,
        };
        if let Some(table) = &self.positions {
            table.backward(&dx, &self.places(frames), gradients);
        }
        let patches = self.patches(frames, on, &dx);
        linear_backward_weights(embed, patches, &dx, gradients);
        Vec::new()
    }

    /// The stream in the output of the chunk before: the residual stream, and features beside it. A row has its part of the feature
    /// of its token.
    pub(super) fn received(&self, x: Tensor<B, 2>) -> Stream<B> {
        let [width, output] = self.widths;
        let part = output / self.patch.merged();
        let (x_rm, parts) = columns::split(x, width, part);
        let [rows, _] = x_rm.dims();
        let whole = |part: Tensor<B, 2>| part.reshape([rows / self.patch.merged(), output]);
        Stream { x_rm, features: parts.into_iter().map(whole).collect() }
    }

    /// The output for the next chunk, which [`received`](Self::received) takes apart.
    pub(super) fn passed_on(&self, stream: Stream<B>) -> Tensor<B, 2> {
        let Stream { x_rm, features } = stream;
        let ([rows, _], [_, output]) = (x_rm.dims(), self.widths);
        let part = |feature: Tensor<B, 2>| feature.reshape([rows, output / self.patch.merged()]);
        columns::join(x_rm, features.into_iter().map(part).collect())
    }
}
