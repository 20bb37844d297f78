//! Estimates of the makespan after a move.

use super::CriticalMoves;
use crate::search::walk::change::Shift;
use crate::search::walk::disjunctive_graph::DisjunctiveGraph;

/// The places of a rank that a shift touches, with their tasks after the shift.
struct Window<'a> {
    /// The tasks of the rank before the shift.
    list: &'a [u32],
    from: usize,
    to: usize,
    low: usize,
    high: usize,
}

impl<'a> Window<'a> {
    fn new(graph: &'a DisjunctiveGraph<'_>, shift: Shift) -> Self {
        let list = &graph.order[shift.rank as usize];
        let (from, to) = (shift.from as usize, shift.to as usize);
        Self { list, from, to, low: from.min(to), high: from.max(to) }
    }

    /// The place before the shift of the task that is at place `i` after it.
    fn old_place(&self, i: usize) -> usize {
        if i == self.to {
            self.from
        } else if self.from < self.to {
            i + 1
        } else {
            i - 1
        }
    }

    /// The task at place `i` after the shift.
    fn task(&self, i: usize) -> usize {
        self.list[self.old_place(i)] as usize
    }

    /// The shifted task.
    fn moved(&self) -> usize {
        self.list[self.from] as usize
    }
}

impl CriticalMoves {
    /// The longest path through the shifted tasks after a move.
    pub(super) fn estimate(&mut self, graph: &DisjunctiveGraph<'_>, shift: Shift) -> f64 {
        let window = Window::new(graph, shift);
        self.compute_heads(graph, &window);
        self.longest_path(graph, &window)
    }

    /// The heads of the tasks of the window after the shift.
    fn compute_heads(&mut self, graph: &DisjunctiveGraph<'_>, window: &Window<'_>) {
        let dur = &graph.costs.dur;
        let moved = window.moved();
        let succs = graph.problem.succs.of_task(moved);
        let mut free = window.low.checked_sub(1).map_or(0.0, |i| {
            let p = window.list[i] as usize;
            graph.head[p] + dur[p]
        });
        self.heads.clear();
        for i in window.low..=window.high {
            let t = window.task(i);
            let mut head = self.detached[window.old_place(i) - self.front].arrival_s.max(free);
            if window.from > window.to && i > window.to {
                // The moved task may precede its own successors now.
                for &(s, comm) in succs {
                    if s as usize == t {
                        head = head.max(self.heads[0] + dur[moved] + comm);
                    }
                }
            }
            self.heads.push(head);
            free = head + dur[t];
        }
    }

    /// The longest path through the tasks of the window, from their heads and their new tails.
    fn longest_path(&self, graph: &DisjunctiveGraph<'_>, window: &Window<'_>) -> f64 {
        let dur = &graph.costs.dur;
        let moved = window.moved();
        let preds = graph.problem.preds.of_task(moved);
        let mut next = window.list.get(window.high + 1).map_or(0.0, |&s| {
            let s = s as usize;
            dur[s] + graph.tail[s]
        });
        let mut longest = 0.0f64;
        let mut tail_of_moved = 0.0;
        for i in (window.low..=window.high).rev() {
            let t = window.task(i);
            let mut tail = self.detached[window.old_place(i) - self.front].delivery_s.max(next);
            if window.from < window.to {
                if t == moved {
                    tail_of_moved = tail;
                }
                for &(p, comm) in preds {
                    if p as usize == t {
                        tail = tail.max(comm + dur[moved] + tail_of_moved);
                    }
                }
            }
            longest = longest.max(self.heads[i - window.low] + dur[t] + tail);
            next = dur[t] + tail;
        }
        longest
    }
}
