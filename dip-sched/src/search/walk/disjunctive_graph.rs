//! An order as a disjunctive graph, with heads and tails that follow every move.
//!
//! The edges of a task are its dependencies and its neighbours on the rank. The head of a task is its start. Its tail is the longest
//! path from its end to the end of the iteration. The graph keeps one topological order. A move rearranges it between the places it
//! touches, which also detects cycles. Changes of heads and tails then spread along it, no further than they reach.

use super::change::{PairChoice, Shift};
use super::overflow::Overflow;
use crate::problem::{Choice, Problem, Solution, TaskCosts};

/// An order under change.
#[derive(Clone)]
pub(super) struct DisjunctiveGraph<'a> {
    pub(super) problem: &'a Problem,
    pub(super) choice: Choice,
    pub(super) costs: TaskCosts,
    pub(super) order: Vec<Vec<u32>>,
    /// Place of each task on its rank.
    pub(super) place: Vec<u32>,
    pub(super) head: Vec<f64>,
    pub(super) tail: Vec<f64>,
    /// Bytes that each rank holds before the task at each place.
    pub(super) live: Vec<Vec<u64>>,
    /// The price of exceeded memory in a loose walk; `None` if every move must fit.
    pub(super) overflow: Option<Overflow>,
    /// A topological order of the graph.
    topo: Vec<u32>,
    /// The position of each task in `topo`.
    at: Vec<u32>,
    /// Bit set over `topo` of the tasks whose head or tail may have changed.
    dirty: Vec<u64>,
    /// Tasks that must move in `topo`, and their list.
    marked: Vec<bool>,
    marked_list: Vec<u32>,
}

impl<'a> DisjunctiveGraph<'a> {
    /// The disjunctive graph of a solution; `None` if its order deadlocks.
    pub(super) fn new(problem: &'a Problem, solution: &Solution) -> Option<Self> {
        let n = problem.n;
        let mut graph = Self {
            problem,
            choice: solution.choice.clone(),
            costs: problem.costs(&solution.choice),
            order: solution.order.clone(),
            place: vec![0; n],
            head: vec![0.0; n],
            tail: vec![0.0; n],
            live: solution.order.iter().map(|l| vec![0; l.len() + 1]).collect(),
            overflow: None,
            topo: Vec::with_capacity(n),
            at: vec![0; n],
            dirty: vec![0; n.div_ceil(64)],
            marked: vec![false; n],
            marked_list: Vec::new(),
        };
        graph.rebuild().then_some(graph)
    }

    /// Replaces the order by a solution of the same problem. Returns false if its order deadlocks.
    pub(super) fn load(&mut self, solution: &Solution) -> bool {
        self.choice.clone_from(&solution.choice);
        self.costs = self.problem.costs(&solution.choice);
        self.order.clone_from(&solution.order);
        self.overflow = None;
        self.rebuild()
    }

    /// Recomputes everything from the order and the choice.
    fn rebuild(&mut self) -> bool {
        for r in 0..self.order.len() {
            for (i, &t) in self.order[r].iter().enumerate() {
                self.place[t as usize] = i as u32;
            }
            self.recompute_live(r, 0, self.order[r].len());
        }
        if !self.sort() {
            return false;
        }
        for i in 0..self.topo.len() {
            let t = self.topo[i] as usize;
            self.head[t] = self.computed_head(t);
        }
        for i in (0..self.topo.len()).rev() {
            let t = self.topo[i] as usize;
            self.tail[t] = self.computed_tail(t);
        }
        true
    }

    /// Recomputes the topological order. Returns false if there is none.
    fn sort(&mut self) -> bool {
        let problem = self.problem;
        let mut waiting = problem.in_degrees();
        for (waiting, &place) in waiting.iter_mut().zip(&self.place) {
            *waiting += u32::from(place > 0);
        }
        self.topo.clear();
        self.topo.extend((0..problem.n as u32).filter(|&t| waiting[t as usize] == 0));
        let mut i = 0;
        while let Some(&t) = self.topo.get(i) {
            self.at[t as usize] = i as u32;
            i += 1;
            let next = self.after(t as usize).map(|s| s as u32);
            let succs = problem.succs.of_task(t as usize).iter().map(|s| s.0);
            for s in succs.chain(next) {
                waiting[s as usize] -= 1;
                if waiting[s as usize] == 0 {
                    self.topo.push(s);
                }
            }
        }
        i == problem.n
    }

    /// The previous task on the rank of `t`.
    #[inline]
    pub(super) fn before(&self, t: usize) -> Option<usize> {
        let place = self.place[t] as usize;
        (place > 0).then(|| self.order[self.problem.rank[t] as usize][place - 1] as usize)
    }

    /// The next task on the rank of `t`.
    #[inline]
    pub(super) fn after(&self, t: usize) -> Option<usize> {
        let next = self.place[t] as usize + 1;
        self.order[self.problem.rank[t] as usize].get(next).map(|&t| t as usize)
    }

    /// Seconds until the last task ends.
    pub(super) fn makespan(&self) -> f64 {
        let last = self.order.iter().filter_map(|l| l.last());
        last.map(|&t| self.head[t as usize] + self.costs.dur[t as usize]).fold(0.0, f64::max)
    }

    /// The order as a solution.
    pub(super) fn solution(&self) -> Solution {
        let (order, choice) = (self.order.clone(), self.choice.clone());
        Solution { order, choice, makespan: self.makespan() }
    }

    /// The earliest start of a task by its dependencies alone, without its rank.
    #[inline]
    pub(super) fn arrival(&self, t: usize) -> f64 {
        let mut at = 0.0f64;
        for &(p, comm) in self.problem.preds.of_task(t) {
            at = at.max(self.head[p as usize] + self.costs.dur[p as usize] + comm);
        }
        at
    }

    /// The longest path from the end of a task through its dependents alone, without its rank.
    #[inline]
    pub(super) fn delivery(&self, t: usize) -> f64 {
        let mut to = 0.0f64;
        for &(s, comm) in self.problem.succs.of_task(t) {
            to = to.max(comm + self.costs.dur[s as usize] + self.tail[s as usize]);
        }
        to
    }

    #[inline]
    fn computed_head(&self, t: usize) -> f64 {
        let own = self.before(t).map_or(0.0, |p| self.head[p] + self.costs.dur[p]);
        own.max(self.arrival(t))
    }

    #[inline]
    fn computed_tail(&self, t: usize) -> f64 {
        let own = self.after(t).map_or(0.0, |s| self.costs.dur[s] + self.tail[s]);
        own.max(self.delivery(t))
    }

    /// Makes a move. Returns false, with nothing changed, if the move would close a cycle.
    pub(super) fn shift(&mut self, shift: Shift) -> bool {
        let (rank, from, to) = (shift.rank as usize, shift.from as usize, shift.to as usize);
        let (t, end) = (self.order[rank][from] as usize, self.order[rank][to] as usize);
        let sorted = if from < to { self.sort_later(t, end) } else { self.sort_earlier(t, end) };
        if !sorted {
            return false;
        }
        let (low, high) = (from.min(to), from.max(to));
        if from < to {
            self.order[rank][low..=high].rotate_left(1);
        } else {
            self.order[rank][low..=high].rotate_right(1);
        }
        for i in low..=high {
            self.place[self.order[rank][i] as usize] = i as u32;
        }
        self.recompute_live(rank, low, high + 1);
        let touched = [
            Some(low),
            Some(low + 1),
            Some(high),
            (high + 1 < self.order[rank].len()).then_some(high + 1),
        ];
        for i in touched.into_iter().flatten() {
            self.mark_dirty(self.order[rank][i]);
        }
        self.spread_heads();
        let touched = [low.checked_sub(1), Some(low), Some(high - 1), Some(high)];
        for i in touched.into_iter().flatten() {
            self.mark_dirty(self.order[rank][i]);
        }
        self.spread_tails();
        true
    }

    /// Gives a pair a new strategy. Memory must allow it.
    pub(super) fn choose(&mut self, PairChoice { pair, choice }: PairChoice) {
        let pair = pair as usize;
        self.choice[pair] = choice;
        self.problem.set_costs(&mut self.costs, pair, choice);
        let p = &self.problem.pairs[pair];
        let rank = self.problem.rank[p.forward.index()] as usize;
        let (forward, last) = (p.forward.index(), p.release().index());
        self.recompute_live(rank, self.place[forward] as usize, self.place[last] as usize + 1);
        for t in [Some(p.forward), p.backward].into_iter().flatten() {
            self.mark_successors_dirty(t.index());
        }
        self.spread_heads();
        for t in [Some(p.forward), p.backward].into_iter().flatten() {
            self.mark_predecessors_dirty(t.index());
        }
        self.spread_tails();
    }

    /// Rearranges the topological order so that `t` comes after `end`.
    fn sort_later(&mut self, t: usize, end: usize) -> bool {
        let (low, high) = (self.at[t] as usize, self.at[end] as usize);
        let next = self.after(t);
        self.marked_list.clear();
        self.marked[t] = true;
        self.marked_list.push(t as u32);
        for i in low + 1..=high {
            let x = self.topo[i] as usize;
            let by_rank = Some(x) != next && self.before(x).is_some_and(|p| self.marked[p]);
            if by_rank || self.problem.preds.of_task(x).iter().any(|p| self.marked[p.0 as usize]) {
                self.marked[x] = true;
                self.marked_list.push(x as u32);
            }
        }
        let sound = !self.marked[end];
        if sound {
            let mut free = low;
            for i in low..=high {
                let x = self.topo[i];
                if !self.marked[x as usize] {
                    self.put(free, x);
                    free += 1;
                }
            }
            for i in 0..self.marked_list.len() {
                self.put(free + i, self.marked_list[i]);
            }
        }
        self.unmark();
        sound
    }

    /// Rearranges the topological order so that `t` comes before `end`.
    fn sort_earlier(&mut self, t: usize, end: usize) -> bool {
        let (low, high) = (self.at[end] as usize, self.at[t] as usize);
        let previous = self.before(t);
        self.marked_list.clear();
        self.marked[t] = true;
        self.marked_list.push(t as u32);
        for i in (low..high).rev() {
            let x = self.topo[i] as usize;
            let by_rank = Some(x) != previous && self.after(x).is_some_and(|s| self.marked[s]);
            if by_rank || self.problem.succs.of_task(x).iter().any(|s| self.marked[s.0 as usize]) {
                self.marked[x] = true;
                self.marked_list.push(x as u32);
            }
        }
        let sound = !self.marked[end];
        if sound {
            let mut free = high;
            for i in (low..=high).rev() {
                let x = self.topo[i];
                if !self.marked[x as usize] {
                    self.put(free, x);
                    free = free.wrapping_sub(1);
                }
            }
            for i in 0..self.marked_list.len() {
                self.put(free - i, self.marked_list[i]);
            }
        }
        self.unmark();
        sound
    }

    /// Puts a task at a position of the topological order.
    fn put(&mut self, position: usize, t: u32) {
        self.topo[position] = t;
        self.at[t as usize] = position as u32;
    }

    fn unmark(&mut self) {
        for &x in &self.marked_list {
            self.marked[x as usize] = false;
        }
    }

    #[inline]
    fn mark_dirty(&mut self, t: u32) {
        let at = self.at[t as usize];
        self.dirty[at as usize / 64] |= 1 << (at % 64);
    }

    fn mark_successors_dirty(&mut self, t: usize) {
        let problem = self.problem;
        for &(s, _) in problem.succs.of_task(t) {
            self.mark_dirty(s);
        }
        if let Some(s) = self.after(t) {
            self.mark_dirty(s as u32);
        }
    }

    fn mark_predecessors_dirty(&mut self, t: usize) {
        let problem = self.problem;
        for &(p, _) in problem.preds.of_task(t) {
            self.mark_dirty(p);
        }
        if let Some(p) = self.before(t) {
            self.mark_dirty(p as u32);
        }
    }

    /// Recomputes dirty heads in topological order, and all heads that depend on a changed one.
    fn spread_heads(&mut self) {
        for word in 0..self.dirty.len() {
            while self.dirty[word] != 0 {
                let bit = self.dirty[word].trailing_zeros();
                self.dirty[word] &= self.dirty[word] - 1;
                let t = self.topo[word * 64 + bit as usize] as usize;
                let head = self.computed_head(t);
                if head != self.head[t] {
                    self.head[t] = head;
                    self.mark_successors_dirty(t);
                }
            }
        }
    }

    /// Recomputes dirty tails in reverse topological order, and all tails that depend on a changed one.
    fn spread_tails(&mut self) {
        for word in (0..self.dirty.len()).rev() {
            while self.dirty[word] != 0 {
                let bit = 63 - self.dirty[word].leading_zeros();
                self.dirty[word] &= !(1 << bit);
                let t = self.topo[word * 64 + bit as usize] as usize;
                let tail = self.computed_tail(t);
                if tail != self.tail[t] {
                    self.tail[t] = tail;
                    self.mark_predecessors_dirty(t);
                }
            }
        }
    }
}
