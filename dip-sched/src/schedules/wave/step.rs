//! The steps of a rank on an ideal wave.

use dip_core::TaskKind::{self, Backward, Forward, Weight};

/// One step of a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step {
    pub(super) kind: TaskKind,
    /// 0 for the stage on the way to the last rank, 1 for the stage on the way back.
    pub(super) visit: usize,
    pub(super) microbatch: usize,
}

/// Writes the steps of one rank; counts the microbatches of each kind and visit.
#[derive(Default)]
pub(super) struct StepWriter {
    pub(super) steps: Vec<Step>,
    next: [[usize; 3]; 2],
}

impl StepWriter {
    /// The next microbatch of a kind on a visit.
    pub(super) fn push(&mut self, kind: TaskKind, visit: usize) {
        let next = &mut self.next[visit][index(kind)];
        self.steps.push(Step { kind, visit, microbatch: *next });
        *next += 1;
    }

    /// A backward with its weight gradient.
    pub(super) fn whole_backward(&mut self, visit: usize) {
        self.push(Backward, visit);
        self.push(Weight, visit);
    }

    /// The number of microbatches of a kind so far.
    pub(super) fn count(&self, kind: TaskKind, visit: usize) -> usize {
        self.next[visit][index(kind)]
    }
}

/// A number for each kind of task.
pub(super) fn index(kind: TaskKind) -> usize {
    match kind {
        Forward => 0,
        Backward => 1,
        Weight => 2,
    }
}
