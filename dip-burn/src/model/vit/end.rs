//! The end of the vision encoder: the adapter, which merges neighbouring patches into tokens of the decoder, and the arrangement of
//! the tokens of tiles.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::VitChunk;
use super::arrange::TokenSources;
use super::start::{images, sequences};
use super::stem::{without_first, without_first_backward};
use crate::model::block::merger::MergerKept;
use crate::model::{Gradients, Slice, cast};

impl<B: Backend> VitChunk<B> {
    /// Returns the output of the chunk, and the tensors that the backward of the adapter needs. `x_rm` is the output of its layers.
    pub(super) fn end(
        &self,
        x_rm: Tensor<B, 2>,
        on: &Slice<'_>,
    ) -> (Tensor<B, 2>, Option<MergerKept<B>>) {
        let Some(merger) = &self.merger else { return (x_rm, None) };
        let x_rm = match self.drops_first {
            true => without_first(x_rm, sequences(on).len()),
            false => x_rm,
        };
        let (y, kept) = merger.forward(x_rm, self.patch.merged());
        let y = match (&self.newline, self.sources(on)) {
            (Some(newline), Some(sources)) => sources.forward(y, newline.val()),
            _ => y,
        };
        (y, Some(kept))
    }

    /// The gradient of the output of the layers.
    pub(super) fn end_backward(
        &self,
        kept: Option<MergerKept<B>>,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let (Some(merger), Some(kept)) = (&self.merger, kept) else { return dy };
        let dy = match (&self.newline, self.sources(on)) {
            (Some(newline), Some(sources)) => {
                let dtype = dy.dtype();
                let (dy, d_newline) = sources.backward(dy);
                gradients.add(newline, move || d_newline);
                cast(dy, dtype)
            }
            _ => dy,
        };
        let d = merger.backward(kept, dy, gradients);
        if self.drops_first { without_first_backward(d, sequences(on).len()) } else { d }
    }

    /// The sources of the tokens of a slice; `None` if they are the outputs of the adapter, in order.
    fn sources(&self, on: &Slice<'_>) -> Option<TokenSources> {
        self.newline.as_ref().and_then(|_| TokenSources::of(images(on), self.patch.merged()))
    }
}
