//! Integration tests of the emulator, one module per capability.

/// The analytic cost model: figures of the paper, memory strategies, reuse.
#[path = "suite/cost.rs"]
mod cost;
/// Plans in virtual time against the timeline semantics.
#[path = "suite/execute.rs"]
mod execute;
/// The costs of all presets as a table. A change of the cost model shows as a change of this text.
#[path = "suite/golden.rs"]
mod golden;
/// The measured cost model.
#[path = "suite/measured.rs"]
mod measured;
/// Reports and the memory timeline.
#[path = "suite/report.rs"]
mod report;
/// Traits implemented outside the crate, through public names only.
#[path = "suite/sockets.rs"]
mod sockets;
/// What replicas and optimiser add to a plan.
#[path = "suite/step.rs"]
mod step;
/// Random plans for the other modules.
#[path = "suite/support.rs"]
mod support;
