//! One operator: its arithmetic, the memory that it reads and writes, and the bytes that it sends.

use dip_core::{Bytes, Flops, OperatorShape};

/// The kind of an operator: which resource bounds it, and which fitted factor slows it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum OperatorKind {
    /// A matrix product with a weight.
    Matmul,
    /// The attention core: scores, softmax and weighted values in one fused kernel.
    Attention,
    /// A look-up in a table of weights.
    Embedding,
    /// Additions and losses: bound by memory.
    Elementwise,
    /// Norms: bound by memory, in one kernel or in several.
    Norm,
    /// Activations: bound by memory or by their own arithmetic.
    Activation,
    /// A collective among the devices that share a layer.
    Collective,
    /// A copy between a device and its host.
    HostCopy,
}

/// The pass of training that runs an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// The forward.
    Forward,
    /// The part of the backward that computes gradients of the inputs.
    InputGradient,
    /// The part of the backward that computes gradients of the weights.
    WeightGradient,
}

/// One operator on one device.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Operator {
    /// Its name within a layer, such as `ffn up`.
    pub name: &'static str,
    /// Its kind.
    pub kind: OperatorKind,
    /// The pass that runs it.
    pub pass: Pass,
    /// Arithmetic, `N_fop`.
    pub flops: Flops,
    /// Bytes read and written in device memory, `N_mem`.
    pub memory: Bytes,
    /// Bytes that this device sends, `N_net`.
    pub network: Bytes,
}

impl Operator {
    /// The forward of an operator of this shape, whose values are `element_bytes` wide.
    pub fn of(shape: &OperatorShape, element_bytes: u32) -> Self {
        let bytes = |values: u64| values * u64::from(element_bytes);
        let operator = match *shape {
            OperatorShape::Matmul { rows, inner, outer } => Self {
                flops: Flops(2.0 * rows as f64 * inner as f64 * outer as f64),
                memory: Bytes(bytes(rows * inner + inner * outer + rows * outer)),
                ..Self::empty(OperatorKind::Matmul)
            },
            OperatorShape::Attention { sequences, tokens, heads, head_dim } => {
                let pairs = sequences * tokens * tokens;
                Self {
                    flops: Flops(4.0 * pairs as f64 * (heads * head_dim) as f64),
                    memory: Bytes(bytes(4 * sequences * tokens * heads * head_dim)),
                    ..Self::empty(OperatorKind::Attention)
                }
            }
            // Counted as one pass over memory: the fitted factor of a kind covers unfused kernels.
            OperatorShape::Norm { rows, width } => {
                let memory = Bytes(bytes(2 * rows * width));
                Self { memory, ..Self::empty(OperatorKind::Norm) }
            }
            OperatorShape::Activation { rows, width } => {
                let memory = Bytes(bytes(3 * rows * width));
                Self { memory, ..Self::empty(OperatorKind::Activation) }
            }
            OperatorShape::Residual { rows, width } => {
                let memory = Bytes(bytes(3 * rows * width));
                Self { memory, ..Self::empty(OperatorKind::Elementwise) }
            }
            OperatorShape::Message { bytes } => {
                Self { network: Bytes(bytes), ..Self::empty(OperatorKind::Collective) }
            }
            OperatorShape::HostCopy { bytes } => Self::host_copy(Bytes(bytes)),
        };
        Self { name: shape.name(), ..operator }
    }

    /// A copy of `bytes` from the device to its host, or back.
    pub const fn host_copy(bytes: Bytes) -> Self {
        let copy = Self::empty(OperatorKind::HostCopy);
        Self { name: "host copy", memory: bytes, network: bytes, ..copy }
    }

    const fn empty(kind: OperatorKind) -> Self {
        Self {
            name: "",
            kind,
            pass: Pass::Forward,
            flops: Flops(0.0),
            memory: Bytes::ZERO,
            network: Bytes::ZERO,
        }
    }
}
