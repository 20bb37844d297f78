//! The ends of a module whose head is its token table.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::ChunkStage;
use crate::model::{TiedEnds, to_device};

impl<B: Backend> ChunkStage<B> {
    /// The gradients of the ends that the chunk holds, table before head, as `[vocab, hidden]`.
    pub(crate) fn tied_gradients(&self) -> impl Iterator<Item = Tensor<B, 2>> + use<B> {
        let TiedEnds { table, head } = self.chunk.tied_ends();
        let sum = |parameter| self.gradients.sum_of(parameter);
        table.and_then(sum).into_iter().chain(head.and_then(sum).map(Tensor::transpose))
    }

    /// Replaces the gradients of the ends that the chunk holds.
    pub(crate) fn set_tied_gradient(&mut self, sum: &Tensor<B, 2>) {
        let sum = to_device(sum.clone(), &self.device);
        let TiedEnds { table, head } = self.chunk.tied_ends();
        if let Some(table) = table {
            self.gradients.replace_sum_of(table, sum.clone());
        }
        if let Some(head) = head {
            self.gradients.replace_sum_of(head, sum.transpose());
        }
    }
}
