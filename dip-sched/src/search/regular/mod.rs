//! Regular orders, and local search over them.
//!
//! A regular order is a few numbers: a turn for each microbatch, a phase for each chunk and kind of task, and the queue rules.

mod chain;
mod phases;

pub(super) use chain::{Origin, RegularChain};
pub(super) use phases::{Phases, class};
