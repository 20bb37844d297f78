//! Operators and what one of them takes on a device (paper section 3).
//!
//! `latency = max(a_fop * N_fop / F, a_mem * N_mem / B_mem, a_net * N_net / B_net)`, with the factors of the cluster.

use std::sync::Arc;

use dip_core::{Bytes, ClusterSpec, Factors, Flops, ModelSpec, OperatorShape, Seconds};

/// What an operator is bound by, and which factor applies to its arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// Which pass of training an operator belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// The forward.
    Forward,
    /// Gradients of the inputs.
    InputGradient,
    /// Gradients of the weights.
    WeightGradient,
}

/// One operator on one device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Operator {
    /// What it is in its layer, such as `ffn up`.
    pub name: &'static str,
    /// What it is bound by.
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

/// Single operators, for micro-benchmarks. `element_bytes` is the width of a value.
impl Operator {
    /// The forward of a measured operator.
    pub fn of(shape: &OperatorShape, element_bytes: u32) -> Self {
        let values = |rows: u64, width: u64| rows * width * u64::from(element_bytes);
        let operator = match *shape {
            OperatorShape::Matmul { rows, inner, outer } => {
                Self::matmul(rows, inner, outer, element_bytes)
            }
            OperatorShape::Attention { sequences, tokens, heads, head_dim } => {
                Self::attention((sequences, tokens), heads, head_dim, element_bytes)
            }
            // What is read and written, in one pass: unfused kernels have a larger factor of the memory.
            OperatorShape::Norm { rows, width } => {
                Self { kind: OperatorKind::Norm, ..Self::elementwise(2 * values(rows, width)) }
            }
            OperatorShape::Activation { rows, width } => Self {
                kind: OperatorKind::Activation,
                ..Self::elementwise(3 * values(rows, width))
            },
            OperatorShape::Residual { rows, width } => Self::elementwise(3 * values(rows, width)),
            OperatorShape::Message { bytes } => Self::collective(bytes),
            OperatorShape::HostCopy { bytes } => Self::host_copy(bytes),
        };
        Self { name: shape.name(), ..operator }
    }

    /// The product of a `rows x inner` by an `inner x outer` matrix.
    pub fn matmul(rows: u64, inner: u64, outer: u64, element_bytes: u32) -> Self {
        let values = rows * inner + inner * outer + rows * outer;
        Self {
            flops: Flops(2.0 * rows as f64 * inner as f64 * outer as f64),
            memory: Bytes(values * u64::from(element_bytes)),
            ..Self::empty("matmul", OperatorKind::Matmul)
        }
    }

    /// Attention, not causal, in each of `sequences` sequences of `tokens`, in heads of `head_dim`.
    pub fn attention(
        (sequences, tokens): (u64, u64),
        heads: u64,
        head_dim: u64,
        element_bytes: u32,
    ) -> Self {
        let values = 4 * sequences * tokens * heads * head_dim;
        let pairs = sequences * tokens * tokens;
        Self {
            flops: Flops(4.0 * pairs as f64 * (heads * head_dim) as f64),
            memory: Bytes(values * u64::from(element_bytes)),
            ..Self::empty("attention", OperatorKind::Attention)
        }
    }

    /// An operator that reads and writes `bytes` in all.
    pub fn elementwise(bytes: u64) -> Self {
        Self { memory: Bytes(bytes), ..Self::empty("elementwise", OperatorKind::Elementwise) }
    }

    /// A collective, or a message, in which this device sends `bytes`.
    pub fn collective(bytes: u64) -> Self {
        Self { network: Bytes(bytes), ..Self::empty("collective", OperatorKind::Collective) }
    }

    /// A copy of `bytes` from the device to its host, or back.
    pub fn host_copy(bytes: u64) -> Self {
        let bytes = Bytes(bytes);
        Self { memory: bytes, network: bytes, ..Self::empty("host copy", OperatorKind::HostCopy) }
    }

    const fn empty(name: &'static str, kind: OperatorKind) -> Self {
        Self {
            name,
            kind,
            pass: Pass::Forward,
            flops: Flops(0.0),
            memory: Bytes::ZERO,
            network: Bytes::ZERO,
        }
    }
}

/// A rule of the user for the latency of operators, such as a table of measured kernels.
pub trait OperatorRule: Send + Sync {
    /// The latency of `op`, or `None` where the rule does not apply and the formula decides.
    fn latency(&self, op: &Operator) -> Option<Seconds>;
}

impl<F: Fn(&Operator) -> Option<Seconds> + Send + Sync> OperatorRule for F {
    fn latency(&self, op: &Operator) -> Option<Seconds> {
        self(op)
    }
}

/// A device with its links, as operators see it.
#[derive(Clone)]
pub struct Machine {
    cluster: ClusterSpec,
    /// Bandwidth among the devices that share a layer.
    tensor_bytes_per_s: f64,
    rule: Option<Arc<dyn OperatorRule>>,
}

impl Machine {
    /// The device of `cluster`. Devices that share a layer of `model` sit in one node where they fit.
    pub fn new(model: &ModelSpec, cluster: &ClusterSpec) -> Self {
        let links = &cluster.links;
        let in_node = model.parallel.tensor <= cluster.devices_per_node;
        let tensor_bytes_per_s =
            if in_node { links.intra_node_bytes_per_s } else { links.inter_node_bytes_per_s };
        Self { cluster: cluster.clone(), tensor_bytes_per_s, rule: None }
    }

    /// The same machine with a rule that goes before the formula.
    pub fn with_rule(mut self, rule: Arc<dyn OperatorRule>) -> Self {
        self.rule = Some(rule);
        self
    }

    /// The cluster it was made for.
    pub fn cluster(&self) -> &ClusterSpec {
        &self.cluster
    }

    /// Seconds that `op` takes.
    pub fn latency(&self, op: &Operator) -> Seconds {
        if let Some(latency) = self.rule.as_ref().and_then(|rule| rule.latency(op)) {
            return latency;
        }
        let device = &self.cluster.device;
        let factors = &self.cluster.factors;
        let flops = arithmetic(op, factors) / device.flops_per_s;
        let memory = moved(op, factors) / device.memory_bytes_per_s;
        let start = factors.launch_s;
        Seconds(match op.kind {
            OperatorKind::Collective => {
                start + self.wire(op.network, self.tensor_bytes_per_s, memory)
            }
            OperatorKind::HostCopy => {
                start + self.wire(op.network, self.cluster.links.host_bytes_per_s, memory)
            }
            _ => start + flops.max(memory),
        })
    }

    /// Start-up of a message and the slower of its two ends: the link or the memory.
    fn wire(&self, bytes: Bytes, bytes_per_s: f64, memory: f64) -> f64 {
        let link = self.cluster.factors.network * bytes.0 as f64 / bytes_per_s;
        self.cluster.links.latency_s + link.max(memory)
    }

    /// Seconds of a message between two pipeline ranks of one node, or of two.
    pub fn transfer(&self, same_node: bool, bytes: Bytes) -> Seconds {
        let links = &self.cluster.links;
        let bandwidth =
            if same_node { links.intra_node_bytes_per_s } else { links.inter_node_bytes_per_s };
        Seconds(self.wire(bytes, bandwidth, 0.0))
    }
}

/// Arithmetic after the slow-down of its kind; small operators do not fill a device.
fn arithmetic(op: &Operator, factors: &Factors) -> f64 {
    let slow_down = match op.kind {
        OperatorKind::Attention => factors.attention,
        _ => factors.matmul,
    };
    match op.flops.0 {
        0.0 => 0.0,
        flops => slow_down * (flops + factors.saturation_flop),
    }
}

/// Bytes after the slow-down of their kind.
fn moved(op: &Operator, factors: &Factors) -> f64 {
    let bytes = op.memory.0 as f64;
    let near = bytes.min(factors.cache_bytes as f64);
    let moved = factors.cached * near + factors.memory * (bytes - near);
    match op.kind {
        OperatorKind::Norm => factors.norm * moved,
        OperatorKind::Activation => moved.max(factors.activation * bytes),
        _ => moved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::presets;

    fn op(kind: OperatorKind, flops: f64, memory: u64, network: u64) -> Operator {
        Operator {
            flops: Flops(flops),
            memory: Bytes(memory),
            network: Bytes(network),
            ..Operator::empty("test", kind)
        }
    }

    fn machine() -> Machine {
        let mut cluster = presets::cluster("h800").unwrap();
        cluster.links.latency_s = 0.0;
        cluster.factors = Factors { matmul: 2.0, network: 4.0, ..Factors::default() };
        Machine::new(&presets::model("vlm-s").unwrap(), &cluster)
    }

    #[test]
    fn the_slowest_resource_decides() {
        let m = machine();
        let seconds = |kind, f, b, n| m.latency(&op(kind, f, b, n)).0;
        assert_eq!(seconds(OperatorKind::Matmul, 989e12, 1, 0), 2.0);
        assert_eq!(seconds(OperatorKind::Attention, 989e12, 1, 0), 1.0);
        assert_eq!(seconds(OperatorKind::Matmul, 1.0, 3_350_000_000_000, 0), 1.0);
        assert_eq!(seconds(OperatorKind::Collective, 0.0, 0, 200_000_000_000), 4.0);
        assert_eq!(seconds(OperatorKind::HostCopy, 0.0, 0, 64_000_000_000), 4.0);
    }

    #[test]
    fn an_operator_of_the_saturation_size_runs_at_half_speed() {
        let mut m = machine();
        m.cluster.factors = Factors { saturation_flop: 989e9, ..Factors::default() };
        assert_eq!(m.latency(&op(OperatorKind::Matmul, 989e9, 0, 0)).0, 2e-3);
    }

    #[test]
    fn what_fits_caches_is_faster_and_norms_and_activations_have_factors_of_their_own() {
        let mut m = machine();
        let bytes = 3_350_000_000_000;
        m.cluster.factors = Factors {
            memory: 2.0,
            cached: 0.5,
            cache_bytes: bytes / 2,
            norm: 3.0,
            activation: 4.0,
            ..Factors::default()
        };
        let seconds = |kind, bytes| m.latency(&op(kind, 0.0, bytes, 0)).0;
        assert_eq!(seconds(OperatorKind::Elementwise, bytes / 4), 0.125);
        assert_eq!(seconds(OperatorKind::Elementwise, bytes), 0.25 + 1.0);
        assert_eq!(seconds(OperatorKind::Norm, bytes / 4), 3.0 * 0.125);
        assert_eq!(seconds(OperatorKind::Activation, bytes / 4), 1.0);
    }

    #[test]
    fn a_rule_goes_before_the_formula_where_it_applies() {
        let rule = |op: &Operator| (op.kind == OperatorKind::Matmul).then_some(Seconds(7.0));
        let m = machine().with_rule(Arc::new(rule));
        assert_eq!(m.latency(&op(OperatorKind::Matmul, 1.0, 1, 0)), Seconds(7.0));
        assert_eq!(m.latency(&op(OperatorKind::Attention, 989e12, 1, 0)), Seconds(1.0));
    }
}
