//! From a target order or from priorities to an order that dependencies and memory allow.
//!
//! | file | what it does |
//! |---|---|
//! | `sequence` | finds a total order of all tasks that fits in memory: the witness |
//! | `reserve` | decides whether a task may run out of turn, so that no schedule can deadlock |
//! | `levels` | chooses strategies from the fastest to the smallest |
//! | `realise` | follows a target order on every rank as far as dependencies and memory allow |
//! | `interleave` | turns priorities into an order: dual-queue interleaving |
//! | `branch` | searches all orders of a small graph: branch and bound |

mod branch;
mod interleave;
mod levels;
mod realise;
mod reserve;
mod sequence;

pub(crate) use branch::{Branch, BranchOutcome};
pub(crate) use interleave::{Interleaver, QueueRule, Rules, RunSettings};
pub(crate) use levels::strategy_levels;
pub(crate) use realise::realise;
pub(crate) use reserve::Reserve;
pub(crate) use sequence::{MicrobatchSequences, feasible_sequence, sequence_by, sequence_of};
