//! Integration tests of dip-sched, one module per capability.

#[path = "suite/generate.rs"]
mod generate;
#[path = "suite/support.rs"]
mod support;

/// Layers on ranks: sizes of sub-microbatches, segments, balance.
#[path = "suite/partition.rs"]
mod partition;

/// Makespans with a closed form.
#[path = "suite/closed_forms.rs"]
mod closed_forms;

/// The search for layers on ranks over the batches of a run.
#[path = "suite/placement.rs"]
mod placement;

/// The default against DynaPipe on separated stages of uneven load.
#[path = "suite/cyclic.rs"]
mod cyclic;

/// Costs that learn from measured iterations, on synthetic timings.
#[path = "suite/learning.rs"]
mod learning;

/// Plans that a judge has chosen.
#[path = "suite/judged.rs"]
mod judged;

/// Planning ahead on another thread.
#[path = "suite/planner.rs"]
mod planner;

/// Valid, bounded and reproducible plans of random graphs.
#[path = "suite/random.rs"]
mod random;

/// Plans are close to optima, and at least as good as schedules made by hand.
#[path = "suite/strength.rs"]
mod strength;

/// Whole systems: placement, memory and schedule together.
#[path = "suite/systems.rs"]
mod systems;
