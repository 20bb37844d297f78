//! The best orders of a search, kept different from each other.

use crate::problem::Solution;

/// Orders of an elite pool.
const MOST: usize = 8;

/// Orders by makespan, shortest first, no two of the same.
#[derive(Default)]
pub(in crate::search) struct Pool {
    members: Vec<Solution>,
}

impl Pool {
    /// Takes an order in where it is shorter than the longest, or as long as another member, whose place it takes. Returns
    /// whether it is the shortest by itself.
    pub(in crate::search) fn offer(&mut self, solution: Solution) -> bool {
        let best = self.members.first().is_none_or(|m| solution.makespan < m.makespan);
        let at = self.members.partition_point(|m| m.makespan < solution.makespan);
        match self.members.get_mut(at) {
            // Of equals the younger stays: plateaus are crossed that way.
            Some(equal) if equal.makespan == solution.makespan => *equal = solution,
            _ => self.members.insert(at, solution),
        }
        self.members.truncate(MOST);
        best
    }

    /// Forgets all members.
    pub(in crate::search) fn clear(&mut self) {
        self.members.clear();
    }

    pub(in crate::search) fn members(&self) -> &[Solution] {
        &self.members
    }
}
