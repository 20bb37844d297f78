//! Tests of dip-sched, one module a capability.

#[allow(dead_code)] // The paper-size models are drawn by long runs only.
mod generate;
mod support;

/// Layers on ranks: sizes of sub-microbatches, segments, balance.
mod partition;

/// Makespans with a closed form.
mod closed_forms;
/// Layers on ranks, found for the batches of a run.
mod cut;
/// Against DynaPipe on separated stages of uneven load.
mod cyclic;
/// Planning ahead on another thread.
mod planner;
/// Valid, bounded and reproducible plans of random graphs.
mod random;
/// Close to optima, and at least as good as schedules made by hand.
mod strength;
/// Whole systems: placement, memory and schedule together.
mod systems;
