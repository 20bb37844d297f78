//! One binary, one module a capability.

/// Costs of stages from operators: anchors of the paper, memory strategies, reuse.
#[path = "suite/cost.rs"]
mod cost;
