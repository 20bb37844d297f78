//! Measured operators: what a micro-benchmark runs on a device and a calibration reads.

use crate::spec::Seconds;

/// A single operator of training, forward, with its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperatorShape {
    /// The product of a `[rows, inner]` by an `[inner, outer]` matrix.
    Matmul {
        /// Rows of the result.
        rows: u64,
        /// Values that each of its values sums over.
        inner: u64,
        /// Columns of the result.
        outer: u64,
    },
    /// The attention core, not causal: every token of a sequence sees all tokens of that sequence.
    Attention {
        /// Sequences.
        sequences: u64,
        /// Tokens of each sequence.
        tokens: u64,
        /// Query heads, and as many key-value heads.
        heads: u64,
        /// Width of a head.
        head_dim: u64,
    },
    /// A root-mean-square norm of `[rows, width]`.
    Norm {
        /// Rows.
        rows: u64,
        /// Width.
        width: u64,
    },
    /// A gated activation: two tensors `[rows, width]` to one.
    Activation {
        /// Rows.
        rows: u64,
        /// Width.
        width: u64,
    },
    /// The sum of two tensors `[rows, width]`.
    Residual {
        /// Rows.
        rows: u64,
        /// Width.
        width: u64,
    },
    /// A message from one pipeline rank to another that takes it in.
    Message {
        /// Its size.
        bytes: u64,
    },
    /// A copy from a device to its host.
    HostCopy {
        /// Its size.
        bytes: u64,
    },
}

impl OperatorShape {
    /// What the operator is called in reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Matmul { .. } => "matmul",
            Self::Attention { .. } => "attention",
            Self::Norm { .. } => "norm",
            Self::Activation { .. } => "activation",
            Self::Residual { .. } => "residual",
            Self::Message { .. } => "message",
            Self::HostCopy { .. } => "host copy",
        }
    }
}

/// One operator that was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatorTime {
    /// What ran.
    pub shape: OperatorShape,
    /// How long it took.
    pub seconds: Seconds,
}

/// What a device ran, and how wide its values are.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorProfile {
    /// What was measured on what.
    pub device: String,
    /// Bytes of a value.
    pub element_bytes: u32,
    /// The measurements.
    pub times: Vec<OperatorTime>,
}
