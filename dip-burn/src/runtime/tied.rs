//! Tied weights: a token table that is also the head of its decoder. Keeps its two copies equal.
//!
//! The first and the last rank of the decoder each hold a copy. Before each optimiser step they exchange their gradients and both
//! use the sum, so that equal updates keep the copies equal.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{ModelSpec, Partition, RankId, StageError};

use super::chunks::Chunks;
use crate::model::to_device;
use crate::stage::ChunkStage;

/// Gradient of a token table, `[vocab, hidden]`; `None` if no token of the batch touched it.
type Gradient<B> = Option<Tensor<B, 2>>;

/// The ends of tied decoders that one rank holds, by module.
pub(super) struct TiedWeights<B: Backend>(BTreeMap<String, TiedEnd<B>>);

/// One or both ends of a tied decoder.
enum TiedEnd<B: Backend> {
    Both,
    One { to: Sender<Gradient<B>>, from: Receiver<Gradient<B>> },
}

impl<B: Backend> TiedWeights<B> {
    /// The ends of every rank.
    pub fn of(model: &ModelSpec, partition: &Partition) -> Vec<Self> {
        let mut all: Vec<_> = (0..partition.ranks).map(|_| Self(BTreeMap::new())).collect();
        for (spec, placed) in model.modules.iter().zip(&partition.modules) {
            let [Some(first), Some(last)] = [placed.chunks.first(), placed.chunks.last()] else {
                continue;
            };
            if !spec.is_tied() {
                continue;
            }
            let mut tie = |rank: RankId, tie| all[rank.index()].0.insert(spec.name.clone(), tie);
            if first.rank == last.rank {
                tie(first.rank, TiedEnd::Both);
                continue;
            }
            let ((to_last, from_first), (to_first, from_last)) = (channel(), channel());
            tie(first.rank, TiedEnd::One { to: to_last, from: from_last });
            tie(last.rank, TiedEnd::One { to: to_first, from: from_first });
        }
        all
    }

    /// Replaces the gradients of both ends of every tied decoder by their sum.
    ///
    /// # Errors
    /// [`StageError::PeerGone`] if the rank with the other end is gone.
    pub fn sum(&self, chunks: &mut Chunks<B>) -> Result<(), StageError> {
        for (module, tie) in &self.0 {
            let ends = chunks.iter().filter(|((name, _), _)| name == module).map(|(_, c)| c);
            let own = add(ends.flat_map(ChunkStage::tied_gradients));
            let sum = match tie {
                TiedEnd::Both => own,
                TiedEnd::One { to, from } => {
                    let gone = || StageError::PeerGone { peer: "the rank with the other end" };
                    to.send(own.clone()).map_err(|_| gone())?;
                    // Addition commutes, so that both ranks get the same bits.
                    add(own.into_iter().chain(from.recv().map_err(|_| gone())?))
                }
            };
            let Some(sum) = sum else { continue };
            let of_module = chunks.iter_mut().filter(|((name, _), _)| name == module);
            of_module.for_each(|(_, chunk)| chunk.set_tied_gradient(&sum));
        }
        Ok(())
    }
}

/// The sum, on the device of the first gradient.
fn add<B: Backend>(gradients: impl Iterator<Item = Tensor<B, 2>>) -> Gradient<B> {
    gradients.reduce(|a, b| {
        let device = a.device();
        a + to_device(b, &device)
    })
}
