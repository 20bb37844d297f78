//! Memory back-pressure that cannot deadlock.
//!
//! One total order of all tasks is known to fit in memory: the *witness* (see [`super::sequence`]). A state of a schedule is safe
//! if the remaining tasks can still run in the order of the witness. Dependencies always allow that. Memory concerns each rank by
//! itself, because the bytes that a rank holds depend only on the order of its own tasks. So a forward may run out of turn exactly
//! if, on its rank, the memory levels before its turn leave room for its bytes. Tasks that give bytes back early only lower these
//! levels. The first remaining task of the witness is always allowed, so some rank can always continue.
//!
//! The levels are the leaves of a tree of range maxima with additions to prefixes; both operations take `log2(tasks of the rank)`
//! steps. Tasks that neither take nor give back bytes have no level, because it would equal the level of the task before.

use crate::problem::{NONE, Problem, TaskCosts};

/// A level below all others.
const LOW: i64 = i64::MIN / 4;

/// The memory levels of every rank; `None` for a rank that cannot run out of memory.
#[derive(Debug, Clone)]
pub(crate) struct Reserve {
    ranks: Vec<Option<Levels>>,
    /// The levels before anything has run.
    initial: Vec<Option<Levels>>,
    /// The witness, by rank.
    lists: Vec<Vec<u32>>,
    /// Position of each task among the tasks of its rank that take or give back bytes, in the order of the witness; [`NONE`] for
    /// other tasks.
    position: Vec<u32>,
    acquire: Vec<i64>,
    release: Vec<i64>,
}

/// The level of memory of one rank at each of its tasks, in the order of the witness.
#[derive(Debug, Clone)]
struct Levels {
    leaves: usize,
    budget: i64,
    /// Bytes held now.
    live: i64,
    /// The highest level below each node of the tree.
    max: Vec<i64>,
    /// What to add to all levels below each node.
    add: Vec<i64>,
}

impl Reserve {
    /// The levels of a witness.
    pub(crate) fn new(problem: &Problem, costs: &TaskCosts, witness: &[u32]) -> Self {
        let mut lists: Vec<Vec<u32>> = vec![Vec::new(); problem.ranks];
        for &t in witness {
            lists[problem.rank[t as usize] as usize].push(t);
        }
        // Sizes beyond 2^60 bytes are rounded up to units that fit.
        let largest = problem.budget.iter().flatten().copied().max().unwrap_or(0);
        let shift = 64u32.saturating_sub(largest.leading_zeros()).saturating_sub(60);
        let up = |b: u64| (b.min(u64::MAX - (1 << shift)).div_ceil(1 << shift)) as i64;
        let acquire: Vec<i64> = costs.acquire.iter().map(|&b| up(b)).collect();
        let release: Vec<i64> = costs.release.iter().map(|&b| up(b)).collect();
        let mut position = vec![NONE; problem.n];
        let levels = |r: usize| {
            let budget = (problem.budget[r]? >> shift) as i64;
            let changes = |t: &&u32| acquire[**t as usize] != 0 || release[**t as usize] != 0;
            let events: Vec<u32> = lists[r].iter().filter(changes).copied().collect();
            for (i, &t) in events.iter().enumerate() {
                position[t as usize] = i as u32;
            }
            Some(Levels::new(&events, budget, &acquire, &release))
        };
        let ranks: Vec<_> = (0..problem.ranks).map(levels).collect();
        Self { initial: ranks.clone(), ranks, lists, position, acquire, release }
    }

    /// Resets to the state before anything has run.
    pub(crate) fn reset(&mut self) {
        for (now, initial) in self.ranks.iter_mut().zip(&self.initial) {
            if let (Some(now), Some(initial)) = (now, initial) {
                now.max.copy_from_slice(&initial.max);
                now.add.copy_from_slice(&initial.add);
                now.live = 0;
            }
        }
    }

    /// The tasks of a rank in the order of the witness.
    pub(crate) fn witness(&self, rank: usize) -> &[u32] {
        &self.lists[rank]
    }

    /// True if the rank may run out of memory.
    #[inline]
    pub(crate) fn is_limited(&self, rank: usize) -> bool {
        self.ranks[rank].is_some()
    }

    /// True if memory allows a task to run next on its rank.
    #[inline]
    pub(crate) fn allows(&self, rank: usize, task: usize) -> bool {
        match &self.ranks[rank] {
            Some(levels) if self.acquire[task] > 0 => {
                let room = levels.budget - self.acquire[task];
                levels.live <= room
                    && (levels.highest() <= room
                        || levels.max_before(self.position[task] as usize) <= room)
            }
            _ => true,
        }
    }

    /// Runs a task, which must be allowed.
    #[inline]
    pub(crate) fn run(&mut self, rank: usize, task: usize) {
        if let Some(levels) = &mut self.ranks[rank]
            && self.position[task] != NONE
        {
            let net = self.acquire[task] - self.release[task];
            levels.run(self.position[task] as usize, net);
        }
    }
}

impl Levels {
    fn new(list: &[u32], budget: i64, acquire: &[i64], release: &[i64]) -> Self {
        // Leaf 0 holds the bytes held now, so that the first task of the witness sees them.
        let leaves = (list.len() + 1).next_power_of_two();
        let mut max = vec![LOW; 2 * leaves];
        max[leaves] = 0;
        let mut live = 0;
        for (i, &t) in list.iter().enumerate() {
            max[leaves + i + 1] = live + acquire[t as usize];
            live += acquire[t as usize] - release[t as usize];
        }
        for i in (1..leaves).rev() {
            max[i] = max[2 * i].max(max[2 * i + 1]);
        }
        Self { leaves, budget, live: 0, max, add: vec![0; 2 * leaves] }
    }

    /// The highest level, now or at any remaining task.
    #[inline]
    fn highest(&self) -> i64 {
        self.max[1]
    }

    /// The highest level, now or at any remaining task before `position`.
    fn max_before(&self, position: usize) -> i64 {
        let mut node = self.leaves + position + 1;
        let mut highest = LOW;
        while node > 1 {
            if node & 1 == 1 {
                highest = highest.max(self.max[node - 1]);
            }
            node >>= 1;
            highest += self.add[node];
        }
        highest
    }

    /// Moves a task from its turn to now. The levels before it change by `net`, and its own level is removed.
    fn run(&mut self, position: usize, net: i64) {
        self.live += net;
        let mut node = self.leaves + position + 1;
        self.max[node] = LOW;
        while node > 1 {
            if node & 1 == 1 {
                self.max[node - 1] += net;
                self.add[node - 1] += net;
            }
            node >>= 1;
            self.max[node] = self.max[2 * node].max(self.max[2 * node + 1]) + self.add[node];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rank whose witness takes and gives back bytes in turn.
    fn levels() -> Levels {
        // F0 (5), F1 (4), B0, B1, F2 (9), B2
        let (acquire, release) = ([5, 4, 0, 0, 9, 0], [0, 0, 5, 4, 0, 9]);
        Levels::new(&[0, 1, 2, 3, 4, 5], 12, &acquire, &release)
    }

    #[test]
    fn levels_follow_the_tasks_that_have_run() {
        let mut levels = levels();
        assert_eq!(levels.max_before(0), 0);
        assert_eq!(levels.max_before(4), 9);
        levels.run(0, 5);
        assert_eq!(levels.max_before(1), 5);
        levels.run(2, -5);
        assert_eq!(levels.max_before(1), 0);
        assert_eq!(levels.max_before(4), 4);
        levels.run(1, 4);
        levels.run(3, -4);
        assert_eq!(levels.max_before(4), 0);
    }
}
