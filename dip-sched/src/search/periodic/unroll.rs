//! From keys to an order within memory.

use std::collections::VecDeque;

use dip_core::TaskKind;

use crate::problem::{Order, Problem, TaskCosts};

/// The order of all tasks by key. On a rank that would exceed its memory, forwards wait for the next tasks that give bytes back, and
/// weight gradients whose backwards have run go first. `None` if a rank cannot keep within its memory this way. The order may
/// deadlock if forwards had to wait.
pub(super) fn unroll(problem: &Problem, costs: &TaskCosts, keys: &[f64]) -> Option<Order> {
    let mut order = Vec::with_capacity(problem.ranks);
    for (tasks, budget) in problem.by_rank.iter().zip(&problem.budget) {
        // Equal keys keep the topological order.
        let mut list = tasks.clone();
        list.sort_by(|&a, &b| keys[a as usize].total_cmp(&keys[b as usize]));
        order.push(match budget {
            Some(budget) => RankOrder::new(problem, costs, *budget).within_memory(&list)?,
            None => list,
        });
    }
    Some(order)
}

/// The order of one rank while it is built.
struct RankOrder<'a> {
    problem: &'a Problem,
    costs: &'a TaskCosts,
    budget: u64,
    live: u64,
    /// Forwards that wait for memory.
    blocked: VecDeque<u32>,
    /// Weight gradients that can run.
    weights: VecDeque<u32>,
    taken: Vec<u32>,
    done: std::collections::HashSet<u32>,
}

impl<'a> RankOrder<'a> {
    fn new(problem: &'a Problem, costs: &'a TaskCosts, budget: u64) -> Self {
        Self {
            problem,
            costs,
            budget,
            live: 0,
            blocked: VecDeque::new(),
            weights: VecDeque::new(),
            taken: Vec::new(),
            done: std::collections::HashSet::new(),
        }
    }

    fn within_memory(mut self, list: &[u32]) -> Option<Vec<u32>> {
        for &t in list {
            if self.done.contains(&t) {
                continue;
            }
            match self.problem.kind[t as usize] {
                TaskKind::Forward => {
                    self.blocked.push_back(t);
                    self.free_memory(t);
                }
                _ => {
                    let forward =
                        self.problem.pairs[self.problem.pair[t as usize] as usize].forward;
                    if self.blocked.contains(&forward.0) {
                        return None;
                    }
                    self.take(t);
                }
            }
            self.unblock();
        }
        self.blocked.is_empty().then_some(self.taken)
    }

    /// Runs weight gradients until this forward fits, if it is the first to wait.
    fn free_memory(&mut self, forward: u32) {
        while self.blocked.front() == Some(&forward) && !self.fits(forward) {
            let Some(weight) = self.weights.pop_front() else { break };
            if !self.done.contains(&weight) {
                self.take(weight);
            }
        }
    }

    fn unblock(&mut self) {
        while let Some(&first) = self.blocked.front().filter(|&&t| self.fits(t)) {
            self.blocked.pop_front();
            self.take(first);
        }
    }

    fn fits(&self, t: u32) -> bool {
        self.live.saturating_add(self.costs.acquire[t as usize]) <= self.budget
    }

    fn take(&mut self, t: u32) {
        let i = t as usize;
        self.live = self.live.saturating_add(self.costs.acquire[i]);
        self.live = self.live.saturating_sub(self.costs.release[i]);
        self.taken.push(t);
        match self.problem.kind[i] {
            TaskKind::Backward => {
                let weight = self.problem.pairs[self.problem.pair[i] as usize].weight;
                self.weights.extend(weight.map(|w| w.0));
            }
            TaskKind::Weight => {
                self.done.insert(t);
            }
            TaskKind::Forward => {}
        }
    }
}
