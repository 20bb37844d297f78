//! Tells when the last weight gradient of an iteration is there.

use burn::tensor::backend::Backend;
use dip_core::StageError;

use crate::params::Bucket;

/// What is done with the gradients of a chunk.
type Then<B> = Box<dyn FnOnce(Bucket<B>) -> Result<(), StageError> + Send>;

/// Backwards that are left, and what follows them.
pub(super) struct Countdown<B: Backend> {
    left: usize,
    then: Option<Then<B>>,
}

impl<B: Backend> Countdown<B> {
    pub fn new(left: usize, then: Then<B>) -> Self {
        Self { left, then: Some(then) }
    }

    /// Another backward is done.
    pub fn tick(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    /// Where none is left: what to do now, once.
    pub fn due(&mut self) -> Option<Then<B>> {
        if self.left == 0 { self.then.take() } else { None }
    }
}
