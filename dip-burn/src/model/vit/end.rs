//! The end of the vision encoder: the adapter, which merges neighbouring patches into tokens of the decoder, and the arrangement of
//! the tokens of tiles.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::arrange::TokenSources;
use super::frames::Frames;
use super::frames::images;
use super::stem::{without_first, without_first_backward};
use super::{Stream, VitChunk};
use crate::model::Gradients;
use crate::model::block::columns;
use crate::model::block::merger::MergerKept;
use crate::model::{Slice, cast};

impl<B: Backend> VitChunk<B> {
    /// Returns the output of the chunk from the outputs of its layers, and the tensors that the backward of the adapter needs. The
    /// output of the module has the features from inside the encoder beside its tokens.
    pub(super) fn end(
        &self,
        stream: Stream<B>,
        (frames, on): (&Frames, &Slice<'_>),
    ) -> (Tensor<B, 2>, Option<MergerKept<B>>) {
        let Some(merger) = &self.merger else { return (self.passed_on(stream), None) };
        let Stream { x_rm, features } = stream;
        let x_rm = match self.drops_first {
            true => without_first(x_rm, frames.grids.len()),
            false => x_rm,
        };
        let (y, kept) = merger.forward(x_rm);
        let y = frames.restored(columns::join(y, features));
        let y = match (&self.newline, self.sources(on)) {
            (Some(newline), Some(sources)) => sources.forward(y, newline.val()),
            _ => y,
        };
        (y, Some(kept))
    }

    /// The gradients of the outputs of the layers.
    pub(super) fn end_backward(
        &self,
        kept: Option<MergerKept<B>>,
        dy: Tensor<B, 2>,
        (frames, on): (&Frames, &Slice<'_>),
        gradients: &mut Gradients<B>,
    ) -> Stream<B> {
        let (Some(merger), Some(kept)) = (&self.merger, kept) else { return self.received(dy) };
        let dy = match (&self.newline, self.sources(on)) {
            (Some(newline), Some(sources)) => {
                let dtype = dy.dtype();
                let (dy, d_newline) = sources.backward(dy);
                gradients.add(newline, move || d_newline);
                cast(dy, dtype)
            }
            _ => dy,
        };
        let [_, output] = self.widths;
        let (dy, features) = columns::split(frames.restored_backward(dy), output, output);
        let d = merger.backward(kept, dy, gradients);
        let x_rm = match self.drops_first {
            true => without_first_backward(d, frames.grids.len()),
            false => d,
        };
        Stream { x_rm, features }
    }

    /// The sources of the tokens of a slice; `None` if they are the outputs of the adapter, in order.
    fn sources(&self, on: &Slice<'_>) -> Option<TokenSources> {
        self.newline.as_ref().and_then(|_| TokenSources::of(images(on), self.patch.merged()))
    }
}
