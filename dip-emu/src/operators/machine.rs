//! How long a device takes for one operator (paper section 3).
//!
//! `latency = max(a_fop * N_fop / F, a_mem * N_mem / B_mem, a_net * N_net / B_net)`, with the fitted factors of the cluster.

use std::sync::Arc;

use dip_core::{Bytes, ClusterSpec, Factors, Seconds};

use super::operator::{Operator, OperatorKind};

/// A user's rule for the latency of operators, such as a table of measured kernels.
///
/// Closures implement it. Give it to [`AnalyticCost::with_rule`](crate::AnalyticCost::with_rule):
///
/// ```
/// use dip_core::{Seconds, presets};
/// use dip_emu::{AnalyticCost, Operator, OperatorKind};
///
/// let (model, cluster) = (presets::model("vlm-s").unwrap(), presets::cluster("h800").unwrap());
/// let free_messages =
///     |op: &Operator| (op.kind == OperatorKind::Collective).then_some(Seconds::ZERO);
/// let cost = AnalyticCost::new(&model, &cluster).with_rule(free_messages);
/// ```
pub trait OperatorRule: Send + Sync {
    /// The latency of `op`, or `None` to leave it to the formula.
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
    /// Bandwidth between the devices that share a layer.
    tensor_bytes_per_s: f64,
    rule: Option<Arc<dyn OperatorRule>>,
}

impl Machine {
    /// A device of `cluster` where `tensor` neighbouring devices share each layer.
    pub fn new(cluster: &ClusterSpec, tensor: u32) -> Self {
        let tensor_bytes_per_s = ring_bytes_per_s(cluster, 1, tensor);
        Self { cluster: cluster.clone(), tensor_bytes_per_s, rule: None }
    }

    /// The same machine with a rule that takes precedence over the formula.
    pub fn with_rule(mut self, rule: Arc<dyn OperatorRule>) -> Self {
        self.rule = Some(rule);
        self
    }

    /// The cluster of the device.
    pub fn cluster(&self) -> &ClusterSpec {
        &self.cluster
    }

    /// The time that `op` takes.
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

    /// The start-up time of a message, and the slower of its two ends: the link or the memory.
    fn wire(&self, bytes: Bytes, bytes_per_s: f64, memory: f64) -> f64 {
        let link = self.cluster.factors.network * bytes.0 as f64 / bytes_per_s;
        self.cluster.links.latency_s + link.max(memory)
    }

    /// The time in which each of `members` devices sends `bytes` to the next around a ring. Devices of the ring are `stride`
    /// devices apart. Members in one node share all their links to other nodes, as the channels of a collective do.
    pub fn ring(&self, stride: u32, members: u32, bytes: Bytes) -> Seconds {
        Seconds(self.wire(bytes, ring_bytes_per_s(&self.cluster, stride, members), 0.0))
    }

    /// The time to move `bytes` through the memory of a device.
    pub fn streamed(&self, bytes: Bytes) -> Seconds {
        let device = &self.cluster.device;
        Seconds(self.cluster.factors.memory * bytes.0 as f64 / device.memory_bytes_per_s)
    }

    /// The time of a message between two pipeline ranks, in one node or in two.
    pub fn transfer(&self, same_node: bool, bytes: Bytes) -> Seconds {
        let links = &self.cluster.links;
        let bandwidth =
            if same_node { links.intra_node_bytes_per_s } else { links.inter_node_bytes_per_s };
        Seconds(self.wire(bytes, bandwidth, 0.0))
    }
}

/// The bandwidth from one device of a ring to the next.
fn ring_bytes_per_s(cluster: &ClusterSpec, stride: u32, members: u32) -> f64 {
    let (links, stride, in_node) = (&cluster.links, stride.max(1), cluster.devices_per_node);
    if stride.saturating_mul(members) <= in_node {
        return links.intra_node_bytes_per_s;
    }
    let together = f64::from((in_node / stride).clamp(1, members.max(1)));
    links.intra_node_bytes_per_s.min(together * links.inter_node_bytes_per_s)
}

/// Arithmetic times the factor of its kind. Small operators do not fill a device, so a constant is added.
fn arithmetic(op: &Operator, factors: &Factors) -> f64 {
    let factor = match op.kind {
        OperatorKind::Attention => factors.attention,
        _ => factors.matmul,
    };
    match op.flops.0 {
        0.0 => 0.0,
        flops => factor * (flops + factors.saturation_flop),
    }
}

/// Bytes times the factors of caches, memory and kind.
fn moved(op: &Operator, factors: &Factors) -> f64 {
    let bytes = op.memory.0 as f64;
    let cached = bytes.min(factors.cache_bytes as f64);
    let moved = factors.cached * cached + factors.memory * (bytes - cached);
    match op.kind {
        OperatorKind::Norm => factors.norm * moved,
        OperatorKind::Activation => moved.max(factors.activation * bytes),
        _ => moved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::Pass;
    use dip_core::{Flops, presets};

    fn op(kind: OperatorKind, flops: f64, memory: u64, network: u64) -> Operator {
        let (flops, memory, network) = (Flops(flops), Bytes(memory), Bytes(network));
        Operator { name: "test", kind, pass: Pass::Forward, flops, memory, network }
    }

    fn machine() -> Machine {
        let mut cluster = presets::cluster("h800").unwrap();
        cluster.links.latency_s = 0.0;
        cluster.factors = Factors { matmul: 2.0, network: 4.0, ..Factors::default() };
        Machine::new(&cluster, 4)
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
    fn caches_are_faster_and_norms_and_activations_have_their_own_factors() {
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
    fn members_of_a_ring_in_one_node_share_its_links_to_other_nodes() {
        // 200 GB/s between devices of a node, 25 GB/s from each to other nodes, slowed 4 times.
        let m = machine();
        let seconds = |stride, members| m.ring(stride, members, Bytes(50_000_000_000)).0;
        assert_eq!((seconds(2, 4), seconds(8, 2), seconds(2, 8)), (1.0, 8.0, 2.0));
        assert_eq!((seconds(1, 64), seconds(16, 4)), (1.0, 8.0));
    }

    #[test]
    fn a_rule_replaces_the_formula_where_it_gives_a_latency() {
        let rule = |op: &Operator| (op.kind == OperatorKind::Matmul).then_some(Seconds(7.0));
        let m = machine().with_rule(Arc::new(rule));
        assert_eq!(m.latency(&op(OperatorKind::Matmul, 1.0, 1, 0)), Seconds(7.0));
        assert_eq!(m.latency(&op(OperatorKind::Attention, 989e12, 1, 0)), Seconds(1.0));
    }
}
