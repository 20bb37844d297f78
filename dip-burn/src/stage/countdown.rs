//! Counts the backwards of an iteration until the last weight gradient is done.

use burn::tensor::backend::Backend;
use dip_core::StageError;

use crate::params::Bucket;

/// Called with the gradients of a chunk.
type Then<B> = Box<dyn FnOnce(Bucket<B>) -> Result<(), StageError> + Send>;

/// The number of backwards that are left, and the call after the last.
pub(super) struct Countdown<B: Backend> {
    left: usize,
    then: Option<Then<B>>,
}

impl<B: Backend> Countdown<B> {
    pub fn new(left: usize, then: Then<B>) -> Self {
        Self { left, then: Some(then) }
    }

    /// Counts a backward.
    pub fn tick(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    /// The call, once no backward is left; `None` after the first time.
    pub fn due(&mut self) -> Option<Then<B>> {
        if self.left == 0 { self.then.take() } else { None }
    }
}
