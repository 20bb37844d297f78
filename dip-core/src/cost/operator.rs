//! Measured operators: the results of a micro-benchmark, which calibration reads.

use crate::spec::Seconds;

/// One forward operator of training, with its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperatorShape {
    /// The product of a `[rows, inner]` by an `[inner, outer]` matrix.
    Matmul {
        /// Rows of the result.
        rows: u64,
        /// Columns of the first matrix and rows of the second.
        inner: u64,
        /// Columns of the result.
        outer: u64,
    },
    /// The attention core without a causal mask: every token of a sequence attends to all its tokens.
    Attention {
        /// Number of sequences.
        sequences: u64,
        /// Tokens of each sequence.
        tokens: u64,
        /// Number of query heads, which is also the number of key-value heads.
        heads: u64,
        /// Width of a head.
        head_dim: u64,
    },
    /// A root-mean-square norm of `[rows, width]`.
    Norm {
        /// Number of rows.
        rows: u64,
        /// Width of a row.
        width: u64,
    },
    /// A gated activation: two tensors `[rows, width]` become one.
    Activation {
        /// Number of rows.
        rows: u64,
        /// Width of a row.
        width: u64,
    },
    /// The sum of two tensors `[rows, width]`.
    Residual {
        /// Number of rows.
        rows: u64,
        /// Width of a row.
        width: u64,
    },
    /// A message between two pipeline ranks.
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
    /// Its name in reports.
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

/// The measured time of one operator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatorTime {
    /// The operator.
    pub shape: OperatorShape,
    /// Its duration.
    pub seconds: Seconds,
}

/// The measured operators of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorProfile {
    /// Description of the device and the benchmark.
    pub device: String,
    /// Bytes of one value.
    pub element_bytes: u32,
    /// The measurements.
    pub times: Vec<OperatorTime>,
}
