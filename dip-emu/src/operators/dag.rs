//! One part of a model as a directed acyclic graph of operators and tensors (paper section 3).
//!
//! Tensors are the edges: an operator runs after the operators that write its inputs. A device has two resources, compute
//! and collectives, and each runs one operator at a time. The operators of a backward follow from those of the forward, by
//! one rule for each kind.

use dip_core::{Bytes, Flops, Seconds};

use super::machine::Machine;
use super::operator::{Operator, OperatorKind, Pass};

/// A tensor of the part that a [`PartBuilder`](crate::PartBuilder) builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorId(usize);

#[derive(Debug, Clone, Copy)]
struct Tensor {
    bytes: Bytes,
    producer: Option<usize>,
    /// True for raw data, which has no gradient.
    raw: bool,
}

/// An operator with its tensors.
#[derive(Debug, Clone)]
struct OperatorNode {
    operator: Operator,
    reads: Vec<TensorId>,
    writes: Vec<TensorId>,
    /// The tensors that its backward needs.
    saves: Vec<TensorId>,
    /// Bytes of its weights; 0 without weights.
    weights: Bytes,
}

/// The properties of an operator, without the tensors that it reads and writes.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Its name within a layer.
    pub name: &'static str,
    /// Its kind.
    pub kind: OperatorKind,
    /// Arithmetic of the forward.
    pub flops: Flops,
    /// Bytes of its weights on this device.
    pub weights: Bytes,
    /// Bytes that this device sends.
    pub network: Bytes,
}

/// Operators in topological order, with the tensors between them.
#[derive(Debug, Clone, Default)]
pub struct Dag {
    tensors: Vec<Tensor>,
    nodes: Vec<OperatorNode>,
}

impl Dag {
    /// Adds an input that has a gradient.
    pub fn input(&mut self, bytes: Bytes) -> TensorId {
        self.tensors.push(Tensor { bytes, producer: None, raw: false });
        TensorId(self.tensors.len() - 1)
    }

    /// Adds raw input data, which has no gradient.
    pub fn data(&mut self, bytes: Bytes) -> TensorId {
        self.tensors.push(Tensor { bytes, producer: None, raw: true });
        TensorId(self.tensors.len() - 1)
    }

    /// Adds an operator that reads `reads`, keeps `saves` for its backward, and writes one tensor for each entry of
    /// `writes`. Returns the written tensors.
    pub fn operator(
        &mut self,
        work: Work,
        reads: &[TensorId],
        saves: &[TensorId],
        writes: &[Bytes],
    ) -> Vec<TensorId> {
        let node = self.nodes.len();
        let first = self.tensors.len();
        let made = writes.iter().map(|&bytes| Tensor { bytes, producer: Some(node), raw: false });
        self.tensors.extend(made);
        let written: Vec<_> = (first..self.tensors.len()).map(TensorId).collect();
        let memory = self.bytes(reads) + self.bytes(&written) + work.weights;
        self.nodes.push(OperatorNode {
            operator: Operator {
                name: work.name,
                kind: work.kind,
                pass: Pass::Forward,
                flops: work.flops,
                memory,
                network: work.network,
            },
            reads: reads.to_vec(),
            writes: written.clone(),
            saves: saves.to_vec(),
            weights: work.weights,
        });
        written
    }

    /// Makes the last operator keep its outputs for its backward too, as attention does.
    pub fn save_outputs(&mut self) {
        if let Some(node) = self.nodes.last_mut() {
            node.saves.extend(node.writes.iter().copied());
        }
    }

    fn bytes(&self, tensors: &[TensorId]) -> Bytes {
        tensors.iter().map(|t| self.tensors[t.0].bytes).sum()
    }

    /// The operators of one pass in the order of execution.
    pub fn operators(&self, pass: Pass) -> Vec<Operator> {
        let of = |node: &OperatorNode| self.pass(node, pass);
        match pass {
            Pass::Forward => self.nodes.iter().filter_map(of).collect(),
            _ => self.nodes.iter().rev().filter_map(of).collect(),
        }
    }

    /// The operator that a node runs in a pass, if any.
    fn pass(&self, node: &OperatorNode, pass: Pass) -> Option<Operator> {
        let forward = node.operator;
        let (reads, writes) = (self.bytes(&node.reads), self.bytes(&node.writes));
        match (pass, forward.kind) {
            (Pass::Forward, _) => Some(forward),
            (Pass::InputGradient, _) if node.reads.iter().all(|t| self.tensors[t.0].raw) => None,
            (Pass::InputGradient, OperatorKind::Matmul | OperatorKind::Collective) => {
                Some(Operator { pass, ..forward })
            }
            // The backward recomputes the scores from queries and keys: five products, where the forward has two.
            (Pass::InputGradient, OperatorKind::Attention) => Some(Operator {
                pass,
                flops: Flops(2.5 * forward.flops.0),
                memory: reads + reads + writes + writes,
                ..forward
            }),
            (Pass::InputGradient, _) => {
                Some(Operator { pass, memory: reads + reads + writes, ..forward })
            }
            (Pass::WeightGradient, _) if node.weights > Bytes::ZERO => {
                Some(Operator { pass, ..forward })
            }
            (Pass::WeightGradient, _) => None,
        }
    }

    /// The time of one pass, by topological timestamps on the two resources.
    pub fn latency(&self, pass: Pass, machine: &Machine) -> Seconds {
        let mut written = vec![Seconds::ZERO; self.tensors.len()];
        let (mut compute, mut link) = (Seconds::ZERO, Seconds::ZERO);
        let mut run = |node: &OperatorNode, before: &[TensorId], after: &[TensorId]| {
            let ready = before.iter().map(|t| written[t.0]).fold(Seconds::ZERO, Seconds::max);
            let mut end = ready;
            if let Some(op) = self.pass(node, pass) {
                let free =
                    if op.kind == OperatorKind::Collective { &mut link } else { &mut compute };
                end = ready.max(*free) + machine.latency(&op);
                *free = end;
            }
            for t in after {
                written[t.0] = written[t.0].max(end);
            }
        };
        match pass {
            Pass::Forward => self.nodes.iter().for_each(|n| run(n, &n.reads, &n.writes)),
            Pass::InputGradient => {
                self.nodes.iter().rev().for_each(|n| run(n, &n.writes, &n.reads));
            }
            // All gradients of outputs exist by now, so weight gradients wait for nothing.
            Pass::WeightGradient => self.nodes.iter().for_each(|n| run(n, &[], &[])),
        }
        compute.max(link)
    }

    /// The time of the forward's attention cores.
    pub fn attention_latency(&self, machine: &Machine) -> Seconds {
        let cores = self.nodes.iter().filter(|n| n.operator.kind == OperatorKind::Attention);
        cores.map(|n| machine.latency(&n.operator)).sum()
    }

    /// Bytes kept for the backward. Operators with frozen weights keep no inputs. With `selective`, the outputs of attention
    /// cores are recomputed, not kept.
    pub fn saved(&self, trainable: bool, selective: bool) -> Bytes {
        let needed = |n: &&OperatorNode| trainable || n.weights == Bytes::ZERO;
        let mut saved: Vec<_> =
            self.nodes.iter().filter(needed).flat_map(|n| n.saves.iter().copied()).collect();
        saved.sort_unstable();
        saved.dedup();
        saved.retain(|t| !(selective && self.written_by_attention(*t)));
        self.bytes(&saved)
    }

    fn written_by_attention(&self, tensor: TensorId) -> bool {
        let producer = self.tensors[tensor.0].producer;
        producer.is_some_and(|n| self.nodes[n].operator.kind == OperatorKind::Attention)
    }

    /// The peak memory of a forward that keeps nothing: each tensor lives from its producer to its last reader.
    pub fn peak(&self) -> Bytes {
        let mut last: Vec<usize> = self.tensors.iter().map(|t| t.producer.unwrap_or(0)).collect();
        for (i, node) in self.nodes.iter().enumerate() {
            for t in &node.reads {
                last[t.0] = last[t.0].max(i);
            }
        }
        let alive = |i: usize| {
            let lives = |(t, tensor): &(usize, &Tensor)| {
                tensor.producer.is_none_or(|p| p <= i) && i <= last[*t]
            };
            self.tensors.iter().enumerate().filter(lives).map(|(_, t)| t.bytes).sum()
        };
        (0..self.nodes.len()).map(alive).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::presets;

    fn work(kind: OperatorKind, flops: f64, weights: u64, network: u64) -> Work {
        let (flops, weights, network) = (Flops(flops), Bytes(weights), Bytes(network));
        Work { name: "test", kind, flops, weights, network }
    }

    /// One second is 989e12 FLOP or 200e9 bytes on the link.
    fn machine() -> Machine {
        let mut cluster = presets::cluster("h800").unwrap();
        cluster.factors = dip_core::Factors::default();
        cluster.links.latency_s = 0.0;
        Machine::new(&cluster, 4)
    }

    #[test]
    fn operators_on_two_resources_overlap_if_no_tensor_connects_them() {
        let mut dag = Dag::default();
        let x = dag.input(Bytes(1));
        let product = work(OperatorKind::Matmul, 989e12, 0, 0);
        let message = work(OperatorKind::Collective, 0.0, 0, 400_000_000_000);
        let y = dag.operator(product, &[x], &[], &[Bytes(1)])[0];
        dag.operator(message, &[x], &[], &[Bytes(1)]);
        assert_eq!(dag.latency(Pass::Forward, &machine()), Seconds(2.0));
        dag.operator(message, &[y], &[], &[Bytes(1)]);
        assert_eq!(dag.latency(Pass::Forward, &machine()), Seconds(4.0));
        dag.operator(product, &[y], &[], &[Bytes(1)]);
        assert_eq!(dag.latency(Pass::Forward, &machine()), Seconds(4.0));
    }

    #[test]
    fn gradients_run_in_reverse_order_and_stop_at_raw_data() {
        let mut dag = Dag::default();
        let raw = dag.data(Bytes(1));
        let embed = work(OperatorKind::Matmul, 989e12, 5, 0);
        let x = dag.operator(embed, &[raw], &[raw], &[Bytes(1)])[0];
        let message = work(OperatorKind::Collective, 0.0, 0, 200_000_000_000);
        let y = dag.operator(message, &[x], &[], &[Bytes(1)])[0];
        dag.operator(embed, &[y], &[x], &[Bytes(1)]);
        let m = machine();
        assert_eq!(dag.latency(Pass::Forward, &m), Seconds(3.0));
        assert_eq!(dag.latency(Pass::InputGradient, &m), Seconds(2.0), "raw data has no gradient");
        assert_eq!(dag.latency(Pass::WeightGradient, &m), Seconds(2.0));
        let names = |pass| dag.operators(pass).iter().map(|op| op.kind).collect::<Vec<_>>();
        use OperatorKind::{Collective, Matmul};
        assert_eq!(names(Pass::InputGradient), [Matmul, Collective]);
        assert_eq!(names(Pass::WeightGradient), [Matmul, Matmul]);
    }

    #[test]
    fn a_tensor_that_two_operators_save_is_kept_once() {
        let mut dag = Dag::default();
        let x = dag.input(Bytes(10));
        let product = work(OperatorKind::Matmul, 1.0, 3, 0);
        let a = dag.operator(product, &[x], &[x], &[Bytes(20)])[0];
        dag.operator(product, &[x], &[x], &[Bytes(40)]);
        dag.operator(work(OperatorKind::Elementwise, 0.0, 0, 0), &[a], &[a], &[Bytes(20)]);
        assert_eq!(dag.saved(true, false), Bytes(30));
        assert_eq!(dag.saved(false, false), Bytes(20), "frozen weights need no inputs");
    }

    #[test]
    fn a_tensor_lives_from_its_producer_to_its_last_reader() {
        let mut dag = Dag::default();
        let x = dag.input(Bytes(10));
        let step = work(OperatorKind::Elementwise, 0.0, 0, 0);
        let a = dag.operator(step, &[x], &[], &[Bytes(100)])[0];
        let b = dag.operator(step, &[a], &[], &[Bytes(1)])[0];
        dag.operator(step, &[b, x], &[], &[Bytes(50)]);
        // The input lives to the end; 100 and 1 live together.
        assert_eq!(dag.peak(), Bytes(10 + 100 + 1));
    }
}
