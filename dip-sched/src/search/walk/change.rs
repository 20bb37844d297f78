//! The elementary changes of a walk.

/// A task on a rank moves from one place to another; the tasks in between close up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shift {
    pub(super) rank: u32,
    pub(super) from: u32,
    pub(super) to: u32,
}

/// A strategy for a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PairChoice {
    pub(super) pair: u32,
    pub(super) choice: u16,
}
