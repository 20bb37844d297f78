//! Tied weights: a token table that is also the head of its decoder. Keeps its two copies equal.
//!
//! The first and the last rank of the decoder each hold a copy. Before each optimiser step they exchange their gradients and both
//! use the sum, so that equal updates keep the copies equal.

mod exchange;

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{ModelSpec, ModuleId, Partition, RankId, StageError};

use super::chunks::Chunks;
use super::connections::Processes;
use super::group::Position;
use crate::model::to_device;
use crate::stage::ChunkStage;
use exchange::{End, Exchange, Key};

/// Gradient of a token table, `[vocab, hidden]`; `None` if no token of the batch touched it.
type Gradient<B> = Option<Tensor<B, 2>>;

/// The ends of tied decoders that one rank holds, by module.
pub(super) struct TiedWeights<B: Backend>(BTreeMap<String, TiedEnd<B>>);

/// One or both ends of a tied decoder.
enum TiedEnd<B: Backend> {
    Both,
    One(End<B>),
}

impl<B: Backend> TiedWeights<B> {
    /// The ends that the rank at each of `positions` holds.
    pub fn of(
        model: &ModelSpec,
        partition: &Partition,
        positions: &[Position],
        processes: Option<&Processes>,
    ) -> Vec<Self> {
        let mut exchange = Exchange::new(processes, model);
        let ends = |&position: &Position| {
            let mut all = BTreeMap::new();
            for (m, (spec, placed)) in model.modules.iter().zip(&partition.modules).enumerate() {
                let ends = [placed.chunks.first(), placed.chunks.last()];
                let [Some(first), Some(last)] = ends.map(|chunk| Some(chunk?.rank)) else {
                    continue;
                };
                let other = |rank: RankId| if rank == first { last } else { first };
                if !spec.is_tied() || ![first, last].contains(&position.rank) {
                    continue;
                }
                let end = if first == last {
                    TiedEnd::Both
                } else {
                    let module = ModuleId::from(m);
                    let to = Position { rank: other(position.rank), ..position };
                    TiedEnd::One(
                        exchange.end(Key { module, position }, Key { module, position: to }),
                    )
                };
                all.insert(spec.name.clone(), end);
            }
            Self(all)
        };
        let all = positions.iter().map(ends).collect();
        exchange.listen();
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
                TiedEnd::One(end) => {
                    let gone = || StageError::PeerGone { peer: "the rank with the other end" };
                    end.send(own.clone()).ok_or_else(gone)?;
                    // Addition commutes, so that both ranks get the same bits.
                    add(own.into_iter().chain(end.receive().ok_or_else(gone)?))
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
