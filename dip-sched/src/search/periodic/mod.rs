//! Periodic orders: the pattern of one microbatch, repeated.
//!
//! ```text
//! Template   the mean microbatch: a cell for each rank, chunk and kind of task
//! Pattern    the slot of every cell modulo the period, and the turn of every microbatch
//! unroll     the order of all tasks by turn and slot, within memory
//! fill       gaps of the ramp-up, the drain and the steady state filled by dual-queue interleaving
//! ```
//!
//! Hand-made schedules such as ZB-V, V-Half and 1F1B are patterns: they differ in how long a microbatch waits on its way, and so in
//! what ranks hold. [`PeriodicChain`] searches for these waits on any graph. Microbatches of unequal load follow the pattern in
//! order; the makespan that the search compares is that of the whole batch.

mod chain;
mod fill;
mod pattern;
mod template;
mod unroll;

pub(super) use chain::PeriodicChain;
pub(super) use template::Template;
