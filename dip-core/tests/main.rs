//! Integration tests of dip-core, one module per capability.

/// The plan that the tests start from, written by hand: two ranks, a frozen encoder, a split backward.
const GOLDEN: &str = include_str!("data/two-ranks.plan.json");

/// From model, partition and batch to the task graph.
#[path = "suite/build.rs"]
mod build;
/// The checker, one test per violation code.
#[path = "suite/check/mod.rs"]
mod check;
/// Orders in PyTorch's CSV form.
#[path = "suite/csv.rs"]
mod csv;
/// Random graphs, orders and plans.
#[path = "suite/random.rs"]
mod random;
/// The timeline semantics, checked by hand and against the checker.
#[path = "suite/timeline.rs"]
mod timeline;
/// Reading graphs and plans: accepted forms, and errors that name the place.
#[path = "suite/wire.rs"]
mod wire;
