//! The state that a stage holds between forward and backward, and its bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dip_core::{Bytes, PairKey};

use crate::model::{Deferred, KeptState};

/// The state between the forward and the backward of one sub-microbatch.
pub(super) struct HeldState {
    /// The stage pairs that the inputs came from.
    pub from: Vec<PairKey>,
    /// The state that the backward needs.
    pub kept: KeptState,
}

/// The state between the backward of one sub-microbatch and its weight task.
pub(super) struct DeferredState {
    /// The weight gradients that are still to be computed.
    pub deferred: Deferred,
    /// Bytes that the forward kept; they stay counted until the weight task.
    pub bytes: Bytes,
}

/// Bytes of activations of all chunks of a rank: now, and at the peak of an iteration.
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

    /// The peak of this iteration.
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

/// Bytes of activations of one chunk: now, and at the peak of this iteration.
#[derive(Debug, Default)]
pub(super) struct Account {
    now: Bytes,
    peak: Bytes,
    /// The memory of the rank, which includes these bytes.
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
