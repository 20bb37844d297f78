//! What one part of a chunk (its start, a layer, its end) takes under each memory strategy.

use dip_core::{Bytes, LayerStrategy, Seconds};

use crate::operators::{Dag, Machine, Operator, Pass};

/// Seconds and bytes of one part.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PartCost {
    pub forward: Seconds,
    pub input_gradient: Seconds,
    pub weight_gradient: Seconds,
    pub attention: Seconds,
    pub saved: Bytes,
    pub saved_selective: Bytes,
    /// Most that lives at once in a forward that keeps nothing.
    pub working: Bytes,
    /// The residual stream at its start.
    pub input: Bytes,
    /// Seconds to copy what is saved to the host, or back.
    pub copy: Seconds,
}

/// Seconds and bytes of one part under a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PartUsage {
    pub forward: Seconds,
    pub input_gradient: Seconds,
    pub bytes: Bytes,
}

impl PartCost {
    /// Simulates the operators of a part whose residual stream starts with `input` bytes.
    pub fn of(
        dag: &Dag,
        machine: &Machine,
        input: Bytes,
        (backward, trainable): (bool, bool),
    ) -> Self {
        let run = |pass, runs| if runs { dag.latency(pass, machine) } else { Seconds::ZERO };
        let saved = dag.saved(trainable, false);
        Self {
            forward: run(Pass::Forward, true),
            input_gradient: run(Pass::InputGradient, backward),
            weight_gradient: run(Pass::WeightGradient, backward && trainable),
            attention: dag.attention_latency(machine),
            saved,
            saved_selective: dag.saved(trainable, true),
            working: dag.peak(),
            input,
            copy: machine.latency(&Operator::host_copy(saved)),
        }
    }

    /// What the part takes under a strategy, without its weight gradient, which is the same under all.
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
            // Copies overlap with computation, so only what is longer than it counts.
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

/// Sums over the parts of a stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    pub usage: PartUsage,
    pub weight_gradient: Seconds,
    pub working: Bytes,
}

impl Totals {
    pub fn add(&mut self, part: &PartCost, strategy: LayerStrategy) {
        let usage = part.under(strategy);
        self.usage.forward += usage.forward;
        self.usage.input_gradient += usage.input_gradient;
        self.usage.bytes += usage.bytes;
        self.weight_gradient += part.weight_gradient;
        self.working = self.working.max(part.working);
    }
}
