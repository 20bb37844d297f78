//! What is between two ranks.

use burn::tensor::backend::Backend;

use crate::model::HostCopy;
use crate::stage::Payload;

/// A payload between two ranks.
pub(super) enum InTransit<B: Backend> {
    /// Both ranks use one device.
    Shared(Payload<B>),
    /// The copy starts as soon as the sender has enqueued the tensor, and overlaps with the sender's next stages.
    Copied(Vec<HostCopy>),
    /// The message of a rank of another process.
    Remote(Vec<u8>),
}
