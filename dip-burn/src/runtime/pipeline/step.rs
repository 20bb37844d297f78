//! The inputs of one iteration, and its report.

use std::sync::Arc;

use dip_core::{Bytes, Plan, Seconds, Trace};

use crate::batch::Batch;

/// One optimiser step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Learning rate.
    pub learning_rate: f64,
    /// Largest norm of all gradients of all ranks together; 0 for no clipping.
    pub clip_norm: f64,
    /// Factor on the loss, so that small gradients do not vanish in f16; 1 for f32 and bf16.
    pub loss_scale: f64,
}

impl Update {
    /// The factor on the gradients; `None` if they are not finite, because such a step would spoil every weight.
    pub(super) fn gradient_scale(&self, norm: f64) -> Option<f64> {
        let clips = self.clip_norm > 0.0 && norm > self.clip_norm;
        let clip = if clips { self.clip_norm / norm } else { 1.0 };
        norm.is_finite().then_some(clip / self.loss_scale)
    }
}

/// The work of one replica in an iteration, the same on all processes with ranks of it. The batches of all replicas state the trained tokens of the whole batch.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaWork<'a> {
    /// A plan of its batch that passes the checker.
    pub plan: &'a Plan,
    /// Its microbatches.
    pub batch: &'a Arc<Batch>,
}

/// The results of one iteration. The first of several processes has the traces and peaks of all ranks, the others those of their own.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StepReport {
    /// Start and end of every stage, one trace per replica.
    pub traces: Vec<Trace>,
    /// From the start of the first rank to the end of the last, the optimiser step included.
    pub elapsed: Seconds,
    /// Mean loss over the trained tokens of the batch: cross-entropy in nats, or squared error of the velocity.
    pub loss: f64,
    /// Norm of all gradients before clipping; 0 without an update. The update is left out if it is not finite.
    pub gradient_norm: f64,
    /// Peak of the activations of each rank, replica by replica.
    pub peak_activation: Vec<Bytes>,
}
