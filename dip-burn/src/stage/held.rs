//! What a stage holds between forward and backward, and how many bytes that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Activations of all chunks of a rank: held now, and the most that was held together in an iteration.
#[derive(Debug, Default)]
pub struct RankMemory {
    now: AtomicU64,
    peak: AtomicU64,
}

impl RankMemory {
    /// Starts an iteration, with nothing held.
    pub fn restart(&self) {
        self.now.store(0, Ordering::Relaxed);
        self.peak.store(0, Ordering::Relaxed);
    }

    /// The most that was held.
    pub fn peak(&self) -> Bytes {
        Bytes(self.peak.load(Ordering::Relaxed))
    }

    fn take(&self, bytes: Bytes) {
        let now = self.now.fetch_add(bytes.0, Ordering::Relaxed) + bytes.0;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: Bytes) {
        self.now.fetch_sub(bytes.0, Ordering::Relaxed);
    }
}

/// Bytes that one chunk holds now, and the most that it held in this iteration.
#[derive(Debug, Default)]
pub(super) struct Account {
    now: Bytes,
    peak: Bytes,
    /// What they count towards.
    pub rank: Arc<RankMemory>,
}

impl Account {
    pub fn restart(&mut self) {
        (self.now, self.peak) = (Bytes::ZERO, Bytes::ZERO);
    }

    pub fn take(&mut self, bytes: Bytes) {
        self.now += bytes;
        self.peak = self.peak.max(self.now);
        self.rank.take(bytes);
    }

    pub fn give_back(&mut self, bytes: Bytes) {
        self.now -= bytes;
        self.rank.give_back(bytes);
    }

    pub fn now(&self) -> Bytes {
        self.now
    }

    pub fn peak(&self) -> Bytes {
        self.peak
    }
}
