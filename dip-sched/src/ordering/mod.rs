//! From a target order or priorities to an order that dependencies and memory allow.
//!
//! | file | what it does |
//! |---|---|
//! | `sequence` | finds one total order of all tasks that fits in memory, the witness |
//! | `reserve` | decides whether a task may run out of turn, so that no schedule can deadlock |
//! | `realise` | follows a target order on every rank as far as dependencies and memory allow |
//! | `interleave` | turns priorities into an order by dual-queue interleaving |
//! | `branch` | searches all orders of a small graph by branch and bound |

mod branch;
mod interleave;
mod realise;
mod reserve;
mod sequence;

pub(crate) use branch::Branch;
pub(crate) use interleave::{Interleaver, Lanes, Rules};
pub(crate) use realise::{levels, realise};
pub(crate) use reserve::Reserve;
pub(crate) use sequence::{Turns, feasible_sequence, microbatches, sequence_by, sequence_of};
