//! One binary, one module a capability.

/// Costs of stages from operators: anchors of the paper, memory strategies, reuse.
#[path = "suite/cost.rs"]
mod cost;
/// Plans in virtual time against the timeline semantics.
#[path = "suite/execute.rs"]
mod execute;
/// Random plans for the other modules.
#[path = "suite/support.rs"]
mod support;
