//! Tests of dip-sched, one module a capability.

mod support;

/// Makespans with a closed form.
mod closed_forms;
