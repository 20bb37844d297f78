//! One binary, one module a capability.

/// Costs of stages from operators: anchors of the paper, memory strategies, reuse.
#[path = "suite/cost.rs"]
mod cost;
/// Plans in virtual time against the timeline semantics.
#[path = "suite/execute.rs"]
mod execute;
/// Costs of all presets as a table: a change of the model shows as a change of this text.
#[path = "suite/golden.rs"]
mod golden;
/// Costs of stages from a measured profile.
#[path = "suite/measured.rs"]
mod measured;
/// Reports and the memory timeline.
#[path = "suite/report.rs"]
mod report;
/// Random plans for the other modules.
#[path = "suite/support.rs"]
mod support;
