//! Why a model has no placement.

use dip_core::PlanError;
use thiserror::Error;

use crate::partition::PartitionError;

/// A model that cannot be placed for a run.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PlacementError {
    /// The model has no partition.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// A sample batch has no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The heaviest microbatch does not fit.
    #[error(
        "memory_limit_bytes is {limit}, but rank {rank} needs {need} bytes for its weights, gradients, optimiser state and the \
         activations of one full microbatch; raise the limit to at least that, or use more ranks"
    )]
    Memory {
        /// The limit in bytes.
        limit: u64,
        /// The rank that needs most.
        rank: usize,
        /// The bytes that it needs.
        need: u64,
    },
}

impl PlacementError {
    /// The limit in bytes that would help; `u64::MAX` if no limit is at fault.
    pub(super) fn memory_needed(&self) -> u64 {
        match self {
            Self::Memory { need, .. } => *need,
            Self::Partition(_) | Self::Plan(_) => u64::MAX,
        }
    }
}
