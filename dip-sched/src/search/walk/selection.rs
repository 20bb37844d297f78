//! An order as a disjunctive graph, with heads and tails that follow every move.
//!
//! Every task has its dependencies and its neighbours on the rank. The head of a task is its start; its tail the longest way
//! from its end to the end of the iteration. One topological order of this graph is kept: a move rearranges it between the
//! places it touches, which also tells whether the move would close a cycle, and changes of heads and tails then spread from
//! there along it and no further than they reach.

use super::overflow::Overflow;
use crate::problem::Solution;
use crate::problem::{Choice, Costs, Problem};

/// A task and the place it goes to on its rank; the tasks between close up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::search) struct Shift {
    pub(in crate::search) rank: u32,
    pub(in crate::search) from: u32,
    pub(in crate::search) to: u32,
}

/// An order under change.
#[derive(Clone)]
pub(in crate::search) struct Selection<'a> {
    pub(in crate::search) problem: &'a Problem,
    pub(in crate::search) choice: Choice,
    pub(in crate::search) costs: Costs,
    pub(in crate::search) order: Vec<Vec<u32>>,
    /// Place of each task on its rank.
    pub(in crate::search) place: Vec<u32>,
    pub(in crate::search) head: Vec<f64>,
    pub(in crate::search) tail: Vec<f64>,
    /// Bytes that each rank holds before its task at each place.
    pub(in crate::search) live: Vec<Vec<u64>>,
    /// What a loose walk pays for memory; `None` where every move must fit.
    pub(in crate::search) overflow: Option<Overflow>,
    topo: Vec<u32>,
    at: Vec<u32>,
    dirty: Vec<u64>,
    marked: Vec<bool>,
    scratch: Vec<u32>,
}

impl<'a> Selection<'a> {
    /// The disjunctive graph of a solution, or `None` where its order deadlocks.
    pub(in crate::search) fn new(problem: &'a Problem, solution: &Solution) -> Option<Self> {
        let n = problem.n;
        let mut selection = Self {
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
            scratch: Vec::new(),
        };
        selection.rebuild().then_some(selection)
    }

    /// Takes over a solution of the same problem; `false` where its order deadlocks.
    pub(in crate::search) fn load(&mut self, solution: &Solution) -> bool {
        self.choice.clone_from(&solution.choice);
        self.costs = self.problem.costs(&solution.choice);
        self.order.clone_from(&solution.order);
        self.overflow = None;
        self.rebuild()
    }

    fn rebuild(&mut self) -> bool {
        for r in 0..self.order.len() {
            for (i, &t) in self.order[r].iter().enumerate() {
                self.place[t as usize] = i as u32;
            }
            self.relive(r, 0, self.order[r].len());
        }
        if !self.sort() {
            return false;
        }
        for i in 0..self.topo.len() {
            let t = self.topo[i] as usize;
            self.head[t] = self.fresh_head(t);
        }
        for i in (0..self.topo.len()).rev() {
            let t = self.topo[i] as usize;
            self.tail[t] = self.fresh_tail(t);
        }
        true
    }

    /// Makes the topological order anew; `false` where there is none.
    fn sort(&mut self) -> bool {
        let problem = self.problem;
        let degree = |t: usize| problem.preds.of_task(t).len() as u32;
        let mut waiting: Vec<u32> =
            (0..problem.n).map(|t| degree(t) + u32::from(self.place[t] > 0)).collect();
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

    /// The task before another one on its rank.
    #[inline]
    pub(in crate::search) fn before(&self, t: usize) -> Option<usize> {
        let place = self.place[t] as usize;
        (place > 0).then(|| self.order[self.problem.rank[t] as usize][place - 1] as usize)
    }

    /// The task after another one on its rank.
    #[inline]
    pub(in crate::search) fn after(&self, t: usize) -> Option<usize> {
        let next = self.place[t] as usize + 1;
        self.order[self.problem.rank[t] as usize].get(next).map(|&t| t as usize)
    }

    /// When the last task ends.
    pub(in crate::search) fn makespan(&self) -> f64 {
        let last = self.order.iter().filter_map(|l| l.last());
        last.map(|&t| self.head[t as usize] + self.costs.dur[t as usize]).fold(0.0, f64::max)
    }

    /// The order as a solution.
    pub(in crate::search) fn solution(&self) -> Solution {
        let (order, choice) = (self.order.clone(), self.choice.clone());
        Solution { order, choice, makespan: self.makespan() }
    }

    /// Start of a task as its dependencies allow, its rank aside.
    #[inline]
    pub(in crate::search) fn arrival(&self, t: usize) -> f64 {
        let mut at = 0.0f64;
        for &(p, comm) in self.problem.preds.of_task(t) {
            at = at.max(self.head[p as usize] + self.costs.dur[p as usize] + comm);
        }
        at
    }

    /// The longest way from the end of a task, its rank aside.
    #[inline]
    pub(in crate::search) fn delivery(&self, t: usize) -> f64 {
        let mut to = 0.0f64;
        for &(s, comm) in self.problem.succs.of_task(t) {
            to = to.max(comm + self.costs.dur[s as usize] + self.tail[s as usize]);
        }
        to
    }

    #[inline]
    fn fresh_head(&self, t: usize) -> f64 {
        let own = self.before(t).map_or(0.0, |p| self.head[p] + self.costs.dur[p]);
        own.max(self.arrival(t))
    }

    #[inline]
    fn fresh_tail(&self, t: usize) -> f64 {
        let own = self.after(t).map_or(0.0, |s| self.costs.dur[s] + self.tail[s]);
        own.max(self.delivery(t))
    }

    /// A move as far as memory allows; `None` where the task stays.
    pub(in crate::search) fn fitting(&self, shift: Shift) -> Option<Shift> {
        let rank = shift.rank as usize;
        if self.overflow.is_some() {
            return Some(shift);
        }
        let Some(budget) = self.problem.budget[rank] else { return Some(shift) };
        let (from, to) = (shift.from as usize, shift.to as usize);
        let (list, live) = (&self.order[rank], &self.live[rank]);
        let t = list[from] as usize;
        let (take, give) = (self.costs.acquire[t], self.costs.release[t]);
        let level = |i: usize| live[i] + self.costs.acquire[list[i] as usize];
        let mut furthest = None;
        if from < to {
            // What it would have given back is held longer; what it takes is taken later.
            for i in from + 1..=to {
                if give > take && level(i) + (give - take) > budget {
                    break;
                }
                if live[i + 1].saturating_add(give) <= budget {
                    furthest = Some(i);
                }
            }
        } else {
            for i in (to..from).rev() {
                if take > give && level(i) + (take - give) > budget {
                    break;
                }
                if live[i].saturating_add(take) <= budget {
                    furthest = Some(i);
                }
            }
        }
        furthest.map(|to| Shift { to: to as u32, ..shift })
    }

    /// Whether memory allows another strategy of a pair.
    pub(in crate::search) fn fits_choice(&self, pair: usize, choice: u16) -> bool {
        let strands = &self.problem.strands[pair];
        let (now, then) =
            (strands[self.choice[pair] as usize].bytes, strands[choice as usize].bytes);
        let p = &self.problem.pairs[pair];
        let rank = self.problem.rank[p.forward.index()] as usize;
        let Some(budget) = self.problem.budget[rank].filter(|_| then > now) else { return true };
        let places = self.place[p.forward.index()]..=self.place[p.release().index()];
        let mut places = places.map(|i| i as usize);
        places.all(|i| {
            let held = self.live[rank][i] + self.costs.acquire[self.order[rank][i] as usize];
            held.saturating_add(then - now) <= budget
        })
    }

    /// Whether memory allows an earlier place of a forward once another pair, or its own, takes a smaller strategy.
    pub(in crate::search) fn fits_with(&self, shift: Shift, pair: usize, choice: u16) -> bool {
        let rank = shift.rank as usize;
        let Some(budget) = self.problem.budget[rank] else { return true };
        let (from, to) = (shift.from as usize, shift.to as usize);
        let (list, live) = (&self.order[rank], &self.live[rank]);
        let t = list[from] as usize;
        let (saved, first, last) = self.saving(pair, choice);
        let own = self.problem.pair[t] as usize == pair;
        let take = self.costs.acquire[t] - if own { saved } else { 0 };
        let give = self.costs.release[t].min(take);
        let less = |held: u64, live: bool| if live && !own { held - saved } else { held };
        let before = less(live[to], first < to && to <= last);
        before.saturating_add(take) <= budget
            && (to..from).all(|i| {
                let level = live[i] + self.costs.acquire[list[i] as usize];
                less(level, first <= i && i <= last).saturating_add(take - give) <= budget
            })
    }

    /// Whether memory allows a larger strategy of one pair once another pair of its rank takes a smaller one.
    pub(in crate::search) fn fits_trade(
        &self,
        (pair, choice): (usize, u16),
        (other, less): (usize, u16),
    ) -> bool {
        let strands = &self.problem.strands[pair];
        let (now, then) =
            (strands[self.choice[pair] as usize].bytes, strands[choice as usize].bytes);
        let p = &self.problem.pairs[pair];
        let rank = self.problem.rank[p.forward.index()] as usize;
        let Some(budget) = self.problem.budget[rank].filter(|_| then > now) else { return true };
        let (saved, first, last) = self.saving(other, less);
        let places = self.place[p.forward.index()]..=self.place[p.release().index()];
        let mut places = places.map(|i| i as usize);
        places.all(|i| {
            let held = self.live[rank][i] + self.costs.acquire[self.order[rank][i] as usize];
            let held = if first <= i && i <= last { held - saved } else { held };
            held.saturating_add(then - now) <= budget
        })
    }

    /// Bytes that a smaller strategy of a pair saves, and the places between which it holds them.
    fn saving(&self, pair: usize, choice: u16) -> (u64, usize, usize) {
        let strands = &self.problem.strands[pair];
        let saved = strands[self.choice[pair] as usize]
            .bytes
            .saturating_sub(strands[choice as usize].bytes);
        let p = &self.problem.pairs[pair];
        let place = |t: usize| self.place[t] as usize;
        (saved, place(p.forward.index()), place(p.release().index()))
    }

    /// Pairs that a rank holds at a place, that of the task there included: the youngest, `most` of them.
    pub(in crate::search) fn held_at(
        &self,
        rank: usize,
        place: usize,
        most: usize,
        pairs: &mut Vec<u32>,
    ) {
        pairs.clear();
        for &t in self.order[rank][..=place].iter().rev() {
            let pair = self.problem.pair[t as usize];
            let p = &self.problem.pairs[pair as usize];
            if p.forward.0 == t && self.place[p.release().index()] as usize >= place {
                pairs.push(pair);
                if pairs.len() == most {
                    return;
                }
            }
        }
    }

    /// Makes a move. Returns `false`, and changes nothing, where it would close a cycle.
    pub(in crate::search) fn shift(&mut self, shift: Shift) -> bool {
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
        self.relive(rank, low, high + 1);
        let touched = [
            Some(low),
            Some(low + 1),
            Some(high),
            (high + 1 < self.order[rank].len()).then_some(high + 1),
        ];
        for i in touched.into_iter().flatten() {
            self.soil(self.order[rank][i]);
        }
        self.spread_heads();
        let touched = [low.checked_sub(1), Some(low), Some(high - 1), Some(high)];
        for i in touched.into_iter().flatten() {
            self.soil(self.order[rank][i]);
        }
        self.spread_tails();
        true
    }

    /// Gives a pair another strategy; memory must allow it.
    pub(in crate::search) fn choose(&mut self, pair: usize, choice: u16) {
        self.choice[pair] = choice;
        self.problem.set_costs(&mut self.costs, pair, choice);
        let p = &self.problem.pairs[pair];
        let rank = self.problem.rank[p.forward.index()] as usize;
        let (forward, last) = (p.forward.index(), p.release().index());
        self.relive(rank, self.place[forward] as usize, self.place[last] as usize + 1);
        for t in [Some(p.forward), p.backward].into_iter().flatten() {
            self.soil_after(t.index());
        }
        self.spread_heads();
        for t in [Some(p.forward), p.backward].into_iter().flatten() {
            self.soil_before(t.index());
        }
        self.spread_tails();
    }

    /// Bytes held before the places `low + 1..=high` of a rank.
    fn relive(&mut self, rank: usize, low: usize, high: usize) {
        if self.problem.budget[rank].is_none() {
            return;
        }
        let mut held = self.live[rank][low];
        for i in low..high {
            let t = self.order[rank][i] as usize;
            held = held.saturating_add(self.costs.acquire[t]).saturating_sub(self.costs.release[t]);
            self.live[rank][i + 1] = held;
        }
        self.recount(rank);
    }

    /// Rearranges the topological order so that `t` comes after `end`.
    fn sort_later(&mut self, t: usize, end: usize) -> bool {
        let (low, high) = (self.at[t] as usize, self.at[end] as usize);
        let next = self.after(t);
        self.scratch.clear();
        self.marked[t] = true;
        self.scratch.push(t as u32);
        for i in low + 1..=high {
            let x = self.topo[i] as usize;
            let by_rank = Some(x) != next && self.before(x).is_some_and(|p| self.marked[p]);
            if by_rank || self.problem.preds.of_task(x).iter().any(|p| self.marked[p.0 as usize]) {
                self.marked[x] = true;
                self.scratch.push(x as u32);
            }
        }
        let sound = !self.marked[end];
        if sound {
            let mut free = low;
            for i in low..=high {
                let x = self.topo[i];
                if !self.marked[x as usize] {
                    self.topo[free] = x;
                    self.at[x as usize] = free as u32;
                    free += 1;
                }
            }
            for &x in &self.scratch {
                self.topo[free] = x;
                self.at[x as usize] = free as u32;
                free += 1;
            }
        }
        self.unmark();
        sound
    }

    /// Rearranges the topological order so that `t` comes before `end`.
    fn sort_earlier(&mut self, t: usize, end: usize) -> bool {
        let (low, high) = (self.at[end] as usize, self.at[t] as usize);
        let previous = self.before(t);
        self.scratch.clear();
        self.marked[t] = true;
        self.scratch.push(t as u32);
        for i in (low..high).rev() {
            let x = self.topo[i] as usize;
            let by_rank = Some(x) != previous && self.after(x).is_some_and(|s| self.marked[s]);
            if by_rank || self.problem.succs.of_task(x).iter().any(|s| self.marked[s.0 as usize]) {
                self.marked[x] = true;
                self.scratch.push(x as u32);
            }
        }
        let sound = !self.marked[end];
        if sound {
            let mut free = high;
            for i in (low..=high).rev() {
                let x = self.topo[i];
                if !self.marked[x as usize] {
                    self.topo[free] = x;
                    self.at[x as usize] = free as u32;
                    free = free.wrapping_sub(1);
                }
            }
            for &x in &self.scratch {
                self.topo[free] = x;
                self.at[x as usize] = free as u32;
                free = free.wrapping_sub(1);
            }
        }
        self.unmark();
        sound
    }

    fn unmark(&mut self) {
        for &x in &self.scratch {
            self.marked[x as usize] = false;
        }
    }

    #[inline]
    fn soil(&mut self, t: u32) {
        let at = self.at[t as usize];
        self.dirty[at as usize / 64] |= 1 << (at % 64);
    }

    fn soil_after(&mut self, t: usize) {
        let problem = self.problem;
        for &(s, _) in problem.succs.of_task(t) {
            self.soil(s);
        }
        if let Some(s) = self.after(t) {
            self.soil(s as u32);
        }
    }

    fn soil_before(&mut self, t: usize) {
        let problem = self.problem;
        for &(p, _) in problem.preds.of_task(t) {
            self.soil(p);
        }
        if let Some(p) = self.before(t) {
            self.soil(p as u32);
        }
    }

    /// Recomputes soiled heads in topological order, and what hangs on those that change.
    fn spread_heads(&mut self) {
        for word in 0..self.dirty.len() {
            while self.dirty[word] != 0 {
                let bit = self.dirty[word].trailing_zeros();
                self.dirty[word] &= self.dirty[word] - 1;
                let t = self.topo[word * 64 + bit as usize] as usize;
                let head = self.fresh_head(t);
                if head != self.head[t] {
                    self.head[t] = head;
                    self.soil_after(t);
                }
            }
        }
    }

    /// Recomputes soiled tails against the topological order, and what hangs on those that change.
    fn spread_tails(&mut self) {
        for word in (0..self.dirty.len()).rev() {
            while self.dirty[word] != 0 {
                let bit = 63 - self.dirty[word].leading_zeros();
                self.dirty[word] &= !(1 << bit);
                let t = self.topo[word * 64 + bit as usize] as usize;
                let tail = self.fresh_tail(t);
                if tail != self.tail[t] {
                    self.tail[t] = tail;
                    self.soil_before(t);
                }
            }
        }
    }
}
