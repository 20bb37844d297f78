//! A pool of the best orders, all different in makespan.

use crate::problem::Solution;

/// Orders by makespan, the shortest first; no two have the same makespan.
pub(super) struct Pool {
    members: Vec<Solution>,
    max_members: usize,
}

impl Pool {
    /// An empty pool of at most `max_members` orders.
    pub(super) fn of_size(max_members: usize) -> Self {
        Self { members: Vec::new(), max_members }
    }

    /// Adds an order if it is shorter than the longest member. An order as long as a member replaces that member. Returns true if
    /// the order is shorter than all members.
    pub(super) fn offer(&mut self, solution: Solution) -> bool {
        let best = self.members.first().is_none_or(|m| solution.makespan < m.makespan);
        let at = self.members.partition_point(|m| m.makespan < solution.makespan);
        match self.members.get_mut(at) {
            // The newer order replaces its equal: this lets walks cross plateaus.
            Some(equal) if equal.makespan == solution.makespan => *equal = solution,
            _ => self.members.insert(at, solution),
        }
        self.members.truncate(self.max_members);
        best
    }

    /// Removes all members.
    pub(super) fn clear(&mut self) {
        self.members.clear();
    }

    /// The members, the shortest first.
    pub(super) fn into_members(self) -> Vec<Solution> {
        self.members
    }

    /// The members, the shortest first.
    pub(super) fn members(&self) -> &[Solution] {
        &self.members
    }
}
