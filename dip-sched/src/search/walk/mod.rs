//! Tabu walks from good orders.
//!
//! | file | what it does |
//! |---|---|
//! | `walker` | one job: a step away from a good order, then a walk |
//! | `rebuild` | a large step: disturbed start times become priorities |
//! | `tabu` | the walk: the best move that does not undo a recent one |
//! | `moves` | moves on critical blocks, and estimates of the makespan after them |
//! | `disjunctive_graph` | the order with heads and tails that follow every move |
//! | `change` | the elementary changes: a shift on a rank, a strategy of a pair |
//! | `memory` | which moves memory allows |
//! | `overflow` | the price of exceeded memory |

mod change;
mod disjunctive_graph;
mod memory;
mod moves;
mod overflow;
mod rebuild;
mod tabu;
mod walker;

pub(super) use walker::{WalkResult, Walker};
