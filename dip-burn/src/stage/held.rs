//! What a stage holds between forward and backward, and how many bytes that is.

use burn::tensor::backend::Backend;
use dip_core::{Bytes, PairKey};

use crate::model::{Chunk, DecoderChunk, Deferred, DitChunk, VitChunk};

/// Between the forward and the backward of one sub-microbatch.
pub(super) struct Held<B: Backend> {
    /// The stage pairs that the inputs came from.
    pub from: Vec<PairKey>,
    /// What the backward needs.
    pub kept: Kept<B>,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Between the backward of one sub-microbatch and its weight task.
pub(super) struct Left {
    /// What is still to be computed.
    pub deferred: Deferred,
    /// Bytes that are accounted for until then: those of the forward.
    pub bytes: Bytes,
}

/// What the chunk of one of the modalities keeps.
pub(super) enum Kept<B: Backend> {
    Vit(<VitChunk<B> as Chunk<B>>::Kept),
    Decoder(<DecoderChunk<B> as Chunk<B>>::Kept),
    Dit(<DitChunk<B> as Chunk<B>>::Kept),
}

impl<B: Backend> Kept<B> {
    pub fn bytes(&self) -> Bytes {
        Bytes(match self {
            Self::Vit(kept) => VitChunk::kept_bytes(kept),
            Self::Decoder(kept) => DecoderChunk::kept_bytes(kept),
            Self::Dit(kept) => DitChunk::kept_bytes(kept),
        })
    }
}

/// Bytes held now, and the most that was held in this iteration.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Account {
    now: Bytes,
    peak: Bytes,
}

impl Account {
    pub fn take(&mut self, bytes: Bytes) {
        self.now += bytes;
        self.peak = self.peak.max(self.now);
    }

    pub fn give_back(&mut self, bytes: Bytes) {
        self.now -= bytes;
    }

    pub fn now(&self) -> Bytes {
        self.now
    }

    pub fn peak(&self) -> Bytes {
        self.peak
    }
}
