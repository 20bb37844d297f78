//! Regular orders and local search over them.

mod chain;
mod phases;

pub(in crate::search) use chain::{Chain, Origin};
pub(in crate::search) use phases::{Phases, class};
