//! Estimates of the makespan after a move.

use super::CriticalMoves;
use crate::search::walk::change::Shift;
use crate::search::walk::disjunctive_graph::DisjunctiveGraph;

impl CriticalMoves {
    /// The longest path through the shifted tasks after a move.
    pub(super) fn estimate(&mut self, graph: &DisjunctiveGraph<'_>, shift: Shift) -> f64 {
        let list = &graph.order[shift.rank as usize];
        let (from, to) = (shift.from as usize, shift.to as usize);
        let dur = &graph.costs.dur;
        let (low, high) = (from.min(to), from.max(to));
        let old = |i: usize| {
            if i == to {
                from
            } else if from < to {
                i + 1
            } else {
                i - 1
            }
        };
        let mut free = low.checked_sub(1).map_or(0.0, |i| {
            let p = list[i] as usize;
            graph.head[p] + dur[p]
        });
        self.heads.clear();
        let moved = list[from] as usize;
        let succs = graph.problem.succs.of_task(moved);
        let preds = graph.problem.preds.of_task(moved);
        for i in low..=high {
            let t = list[old(i)] as usize;
            let mut head = self.detached[old(i) - self.front].arrival_s.max(free);
            if from > to && i > to {
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
        let mut next = list.get(high + 1).map_or(0.0, |&s| {
            let s = s as usize;
            dur[s] + graph.tail[s]
        });
        let mut longest = 0.0f64;
        let mut tail_of_moved = 0.0;
        for i in (low..=high).rev() {
            let t = list[old(i)] as usize;
            let mut tail = self.detached[old(i) - self.front].delivery_s.max(next);
            if from < to {
                if t == moved {
                    tail_of_moved = tail;
                }
                for &(p, comm) in preds {
                    if p as usize == t {
                        tail = tail.max(comm + dur[moved] + tail_of_moved);
                    }
                }
            }
            longest = longest.max(self.heads[i - low] + dur[t] + tail);
            next = dur[t] + tail;
        }
        longest
    }
}
