//! The end of the vision encoder: the adapter, which merges neighbouring patches into tokens of the decoder.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::VitChunk;
use super::start::sequences;
use super::stem::{without_first, without_first_backward};
use crate::model::block::merger::MergerKept;
use crate::model::{Gradients, Slice};

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
        let d = merger.backward(kept, dy, gradients);
        if self.drops_first { without_first_backward(d, sequences(on).len()) } else { d }
    }
}
