//! The cost of one part of a chunk (its start, a layer, or its end) under each memory strategy.

use dip_core::{Bytes, LayerStrategy, Seconds};

use crate::operators::{Dag, Machine, Operator, Pass};

/// The gradients that the backward of a part computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ComputedGradients {
    pub inputs: bool,
    pub weights: bool,
}

/// Seconds and bytes of one part.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PartCost {
    pub forward: Seconds,
    pub input_gradient: Seconds,
    pub weight_gradient: Seconds,
    /// The time of the attention cores of the forward.
    pub attention: Seconds,
    /// The activations kept for the backward.
    pub saved: Bytes,
    /// The activations kept under selective recompute.
    pub saved_selective: Bytes,
    /// The peak memory of a forward that keeps nothing.
    pub working: Bytes,
    /// The residual stream at the start of the part.
    pub input: Bytes,
    /// The time to copy the saved activations to the host, or back.
    pub copy: Seconds,
}

/// Seconds and bytes of one part, or of several, under a strategy. The weight gradient is left out, because it is the same
/// under all strategies.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PartUsage {
    pub forward: Seconds,
    pub input_gradient: Seconds,
    pub bytes: Bytes,
}

impl PartCost {
    /// Simulates the operators of a part whose residual stream starts with `input` bytes.
    pub fn of(dag: &Dag, machine: &Machine, input: Bytes, gradients: ComputedGradients) -> Self {
        let run = |pass, runs| if runs { dag.latency(pass, machine) } else { Seconds::ZERO };
        let saved = dag.saved(gradients.weights, false);
        Self {
            forward: run(Pass::Forward, true),
            input_gradient: run(Pass::InputGradient, gradients.inputs),
            weight_gradient: run(Pass::WeightGradient, gradients.weights),
            attention: dag.attention_latency(machine),
            saved,
            saved_selective: dag.saved(gradients.weights, true),
            working: dag.peak(),
            input,
            copy: machine.latency(&Operator::host_copy(saved)),
        }
    }

    /// The cost of the part under `strategy`.
    pub fn under(&self, strategy: LayerStrategy) -> PartUsage {
        let keep = PartUsage {
            forward: self.forward,
            input_gradient: self.input_gradient,
            bytes: self.saved,
        };
        match strategy {
            LayerStrategy::Keep => keep,
            LayerStrategy::Selective => PartUsage {
                input_gradient: self.input_gradient + self.attention,
                bytes: self.saved_selective,
                ..keep
            },
            LayerStrategy::Full => PartUsage {
                input_gradient: self.input_gradient + self.forward,
                bytes: self.input,
                ..keep
            },
            // A copy overlaps with computation. Only the longer of the two counts.
            LayerStrategy::Offload => PartUsage {
                forward: self.forward.max(self.copy),
                input_gradient: self
                    .input_gradient
                    .max(Seconds(self.copy.0 - self.weight_gradient.0)),
                bytes: Bytes::ZERO,
            },
        }
    }
}

/// The sums over the parts of a stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct StageTotals {
    pub usage: PartUsage,
    pub weight_gradient: Seconds,
    /// The largest working set of a part.
    pub working: Bytes,
}

impl StageTotals {
    /// Adds a part that keeps nothing and runs no backward.
    pub fn add_forward(&mut self, part: &PartCost) {
        self.usage.forward += part.forward;
        self.working = self.working.max(part.working);
    }

    /// Adds a part under `strategy`.
    pub fn add(&mut self, part: &PartCost, strategy: LayerStrategy) {
        let usage = part.under(strategy);
        self.usage.forward += usage.forward;
        self.usage.input_gradient += usage.input_gradient;
        self.usage.bytes += usage.bytes;
        self.weight_gradient += part.weight_gradient;
        self.working = self.working.max(part.working);
    }
}
