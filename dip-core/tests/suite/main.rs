//! Integration tests of dip-core, one module a capability.

/// The hand-written plan that the tests start from: two ranks, a frozen encoder, a split backward.
const GOLDEN: &str = include_str!("../data/two-ranks.plan.json");

/// Random graphs, orders and plans.
mod random;

/// Reading graphs and plans: what is accepted, and how what is not is named.
mod wire;

/// From model, partition and batch to the task graph.
mod build;

/// The checker: one test a violation code.
mod check;

/// Orders in the CSV form of PyTorch.
mod csv;

/// The timeline semantics, by hand and against the checker as its oracle.
mod timeline;
