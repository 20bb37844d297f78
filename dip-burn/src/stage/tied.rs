//! The ends of a decoder whose head is its token table.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::ChunkStage;
use crate::model::{DecoderChunk, to_device};

impl<B: Backend> ChunkStage<B> {
    /// The gradients of the ends that it holds, table before head, as `[vocab, hidden]`.
    pub(crate) fn tied_gradients(&self) -> impl Iterator<Item = Tensor<B, 2>> + use<B> {
        let of = |parameter| self.gradients.sum_of(parameter);
        let decoder = self.decoder();
        let table = decoder.and_then(DecoderChunk::tied_table).and_then(of);
        let head = decoder.and_then(DecoderChunk::tied_head).and_then(of);
        table.into_iter().chain(head.map(Tensor::transpose))
    }

    /// Replaces the gradients of the ends that it holds.
    pub(crate) fn set_tied_gradient(&mut self, sum: &Tensor<B, 2>) {
        let sum = to_device(sum.clone(), &self.device);
        let super::Modules::Decoder(decoder) = &self.modules else { return };
        if let Some(table) = decoder.tied_table() {
            self.gradients.replace_sum_of(table, sum.clone());
        }
        if let Some(head) = decoder.tied_head() {
            self.gradients.replace_sum_of(head, sum.transpose());
        }
    }
}
