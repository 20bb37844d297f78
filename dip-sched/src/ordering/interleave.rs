//! Dual-queue stage interleaving (paper section 2): from priorities to an order, under memory limits.
//!
//! Every rank has a queue of forwards, one of backwards and one of weight tasks. The rank that can start first goes next.
//! Where a forward and a backward can both start, they alternate as 1F1B does; weight tasks fill what is left. A forward that
//! memory does not allow waits (see [`crate::ordering::reserve`]).
//!
//! The queues are bit sets over the tasks of a rank in the order of their priorities, so that the most urgent task is the
//! first set bit; tasks whose inputs are still on their way wait beside them. All arrays are made once: a run allocates
//! nothing.

use dip_core::TaskKind;

use crate::ordering::Reserve;
use crate::problem::{Costs, Problem};

/// How a rank chooses between its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lanes {
    /// Forward and backward alternate (the paper).
    Alternate,
    /// Backwards go first.
    BackwardFirst,
    /// Forwards go first, as far as memory allows.
    ForwardFirst,
    /// One queue: priority alone decides.
    Single,
    /// One queue for weight tasks as well.
    SingleWithWeights,
}

/// The rules of one run, beside the priorities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rules {
    /// Choice between the queues.
    pub(crate) lanes: Lanes,
    /// A rank waits for a more urgent task that arrives within this part of the duration of the task at hand.
    pub(crate) patience: f64,
    /// The same for a weight task at hand.
    pub(crate) weight_patience: f64,
    /// Forwards tried, most urgent first, where memory is short. 1 is strict back-pressure.
    pub(crate) tries: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { lanes: Lanes::Alternate, patience: 0.0, weight_patience: 0.0, tries: 8 }
    }
}

/// A rank in the middle of a run.
#[derive(Debug, Clone, Default)]
struct Rank {
    /// End of its last task.
    free: f64,
    /// When it can decide next; infinite where only others can change that.
    wake: f64,
    last_was_forward: bool,
    /// Tasks whose inputs arrive later.
    arriving: Vec<(f64, u32)>,
    /// Bit sets of the three queues.
    queues: [Queue; 3],
    /// The tasks by priority.
    by_priority: Vec<u32>,
}

/// A bit set with its first word that may hold a bit.
#[derive(Debug, Clone, Default)]
struct Queue {
    words: Vec<u64>,
    low: usize,
}

impl Queue {
    #[inline]
    fn insert(&mut self, position: u32) {
        let word = position as usize / 64;
        self.words[word] |= 1 << (position % 64);
        self.low = self.low.min(word);
    }

    #[inline]
    fn remove(&mut self, position: u32) {
        self.words[position as usize / 64] &= !(1 << (position % 64));
    }

    #[inline]
    fn contains(&self, position: u32) -> bool {
        self.words[position as usize / 64] >> (position % 64) & 1 == 1
    }

    /// The first position in the set.
    #[inline]
    fn first(&mut self) -> Option<u32> {
        while let Some(&word) = self.words.get(self.low) {
            if word != 0 {
                return Some(self.low as u32 * 64 + word.trailing_zeros());
            }
            self.low += 1;
        }
        None
    }

    /// The first position after another one.
    fn after(&self, position: u32) -> Option<u32> {
        let start = position + 1;
        let mut at = start as usize / 64;
        let mut word = self.words.get(at)? & (u64::MAX << (start % 64));
        while word == 0 {
            at += 1;
            word = *self.words.get(at)?;
        }
        Some(at as u32 * 64 + word.trailing_zeros())
    }

    fn clear(&mut self) {
        self.words.fill(0);
        self.low = self.words.len();
    }
}

/// The machine that runs priorities; keep one a thread.
pub(crate) struct Interleaver<'a> {
    problem: &'a Problem,
    ranks: Vec<Rank>,
    waiting: Vec<u32>,
    in_degree: Vec<u32>,
    ready: Vec<f64>,
    lane: Vec<u8>,
    /// Position of each task among the tasks of its rank by priority.
    position: Vec<u32>,
    executed: Vec<bool>,
    /// For each rank the first task of the witness that has not run.
    first: Vec<usize>,
    /// Tasks in the order in which they were placed.
    placed: Vec<u32>,
    /// For each rank the durations of its tasks that have not run, and the shortest way from its last one to the end.
    left: Vec<f64>,
    /// The keys of one rank's tasks.
    sorted: Vec<u128>,
}

/// A key and a task in one number, which is as large as the key, then the task (`f64::total_cmp`).
#[inline]
fn sortable(key: f64, task: u32) -> u128 {
    let bits = key.to_bits();
    let flip = if bits >> 63 == 1 { u64::MAX } else { 1 << 63 };
    u128::from(bits ^ flip) << 32 | u128::from(task)
}

impl<'a> Interleaver<'a> {
    pub(crate) fn new(problem: &'a Problem) -> Self {
        let rank = |r: usize| {
            let n = problem.by_rank[r].len();
            let queue = Queue { words: vec![0; n.div_ceil(64)], low: 0 };
            Rank {
                by_priority: problem.by_rank[r].clone(),
                arriving: Vec::with_capacity(n),
                queues: [queue.clone(), queue.clone(), queue],
                ..Rank::default()
            }
        };
        let in_degree: Vec<u32> =
            (0..problem.n).map(|t| problem.preds.of_task(t).len() as u32).collect();
        Self {
            problem,
            ranks: (0..problem.ranks).map(rank).collect(),
            waiting: in_degree.clone(),
            in_degree,
            ready: vec![0.0; problem.n],
            lane: vec![0; problem.n],
            position: vec![0; problem.n],
            executed: vec![false; problem.n],
            first: vec![0; problem.ranks],
            placed: Vec::with_capacity(problem.n),
            left: vec![0.0; problem.ranks],
            sorted: Vec::with_capacity(problem.by_rank.iter().map(Vec::len).max().unwrap_or(0)),
        }
    }

    /// The order of the last run.
    pub(crate) fn order(&self) -> Vec<Vec<u32>> {
        let mut order: Vec<Vec<u32>> =
            self.problem.by_rank.iter().map(|tasks| Vec::with_capacity(tasks.len())).collect();
        for &t in &self.placed {
            order[self.problem.rank[t as usize] as usize].push(t);
        }
        order
    }

    /// Places every task by its key (smallest first) and returns the makespan, or `None` once it cannot be below `cutoff`.
    pub(crate) fn run(
        &mut self,
        costs: &Costs,
        reserve: &mut Reserve,
        keys: &[f64],
        (rules, tail, cutoff): (&Rules, &[f64], f64),
    ) -> Option<f64> {
        self.reset(keys, rules, reserve);
        self.load(costs, tail);
        let mut makespan = 0.0f64;
        while self.placed.len() < self.problem.n {
            let mut r = 0;
            for i in 1..self.ranks.len() {
                if self.ranks[i].wake < self.ranks[r].wake {
                    r = i;
                }
            }
            let now = self.ranks[r].wake;
            debug_assert!(now.is_finite(), "the witness always allows some rank to go on");
            let Some(task) = self.choose(r, now, costs, reserve, rules) else { continue };
            let end = now + costs.dur[task];
            self.left[r] -= costs.dur[task];
            if end + tail[task].max(self.left[r]) >= cutoff {
                return None;
            }
            makespan = makespan.max(end);
            self.place(r, task, end, reserve);
        }
        Some(makespan)
    }

    /// What every rank still has to run, with the shortest way from any of its tasks to the end.
    fn load(&mut self, costs: &Costs, tail: &[f64]) {
        for (left, tasks) in self.left.iter_mut().zip(&self.problem.by_rank) {
            let way = tasks.iter().map(|&t| tail[t as usize]).fold(f64::INFINITY, f64::min);
            let load: f64 = tasks.iter().map(|&t| costs.dur[t as usize]).sum();
            *left = (load + way) * (1.0 - 1e-9);
        }
    }

    fn reset(&mut self, keys: &[f64], rules: &Rules, reserve: &mut Reserve) {
        reserve.reset();
        self.placed.clear();
        self.waiting.copy_from_slice(&self.in_degree);
        self.ready.fill(0.0);
        self.executed.fill(false);
        self.first.fill(0);
        let single = matches!(rules.lanes, Lanes::Single | Lanes::SingleWithWeights);
        for t in 0..self.problem.n {
            self.lane[t] = match self.problem.kind[t] {
                TaskKind::Forward => 0,
                TaskKind::Backward => u8::from(!single),
                TaskKind::Weight if rules.lanes == Lanes::SingleWithWeights => 0,
                TaskKind::Weight => 2,
            };
        }
        for rank in &mut self.ranks {
            self.sorted.clear();
            self.sorted.extend(rank.by_priority.iter().map(|&t| sortable(keys[t as usize], t)));
            self.sorted.sort_unstable();
            for (i, (slot, &key)) in rank.by_priority.iter_mut().zip(&self.sorted).enumerate() {
                *slot = key as u32;
                self.position[*slot as usize] = i as u32;
            }
            rank.queues.iter_mut().for_each(Queue::clear);
            rank.arriving.clear();
            (rank.free, rank.wake, rank.last_was_forward) = (0.0, f64::INFINITY, false);
        }
        for t in 0..self.problem.n {
            if self.waiting[t] == 0 {
                let rank = &mut self.ranks[self.problem.rank[t] as usize];
                rank.arriving.push((0.0, t as u32));
                rank.wake = 0.0;
            }
        }
    }

    /// The task that a rank starts now, or `None` where it waits; then its wake-up time is set anew.
    #[inline]
    fn choose(
        &mut self,
        r: usize,
        now: f64,
        costs: &Costs,
        reserve: &mut Reserve,
        rules: &Rules,
    ) -> Option<usize> {
        self.admit(r, now);
        let (forward, backward, weight) = self.heads(r, reserve, rules);
        let rank = &self.ranks[r];
        let lanes = match rules.lanes {
            Lanes::BackwardFirst => [backward, forward, weight],
            Lanes::ForwardFirst => [forward, backward, weight],
            _ if rank.last_was_forward => [backward, forward, weight],
            _ => [forward, backward, weight],
        };
        let chosen = lanes.into_iter().flatten().next();
        let rank = &mut self.ranks[r];
        let Some(position) = chosen else {
            rank.wake = rank.arriving.iter().map(|a| a.0).fold(f64::INFINITY, f64::min);
            return None;
        };
        let task = rank.by_priority[position as usize] as usize;
        let lane = self.lane[task];
        let patience = if lane == 2 { rules.weight_patience } else { rules.patience };
        if patience > 0.0 {
            let until = now + patience * costs.dur[task];
            let more_urgent = |&&(_, t): &&(f64, u32)| {
                let other = self.lane[t as usize];
                other < 2 && (lane == 2 || self.position[t as usize] < position)
            };
            let next = rank.arriving.iter().filter(|a| a.0 < until).filter(more_urgent);
            let next = next
                .filter(|&&(_, t)| reserve.allows(r, t as usize))
                .map(|a| a.0)
                .fold(f64::INFINITY, f64::min);
            if next < until {
                rank.wake = next;
                return None;
            }
        }
        rank.queues[lane as usize].remove(position);
        Some(task)
    }

    /// Moves tasks whose inputs have arrived into the queues.
    #[inline]
    fn admit(&mut self, r: usize, now: f64) {
        let rank = &mut self.ranks[r];
        let mut i = 0;
        while i < rank.arriving.len() {
            let (at, t) = rank.arriving[i];
            if at <= now {
                rank.arriving.swap_remove(i);
                rank.queues[self.lane[t as usize] as usize].insert(self.position[t as usize]);
            } else {
                i += 1;
            }
        }
    }

    /// The most urgent task of each queue that memory allows.
    #[inline]
    fn heads(
        &mut self,
        r: usize,
        reserve: &Reserve,
        rules: &Rules,
    ) -> (Option<u32>, Option<u32>, Option<u32>) {
        let rank = &mut self.ranks[r];
        let mut forward = rank.queues[0].first();
        let backward = rank.queues[1].first();
        let weight = rank.queues[2].first();
        if reserve.is_limited(r) && forward.is_some() {
            let mut tries = rules.tries;
            while let Some(position) = forward {
                let task = rank.by_priority[position as usize] as usize;
                if reserve.allows(r, task) {
                    break;
                }
                // In a shared queue the tasks behind a blocked forward may be what frees memory.
                tries -= u32::from(self.problem.kind[task] == TaskKind::Forward);
                if tries == 0 {
                    forward = self.turn(r, reserve).or_else(|| self.next_release(r, position));
                    break;
                }
                forward = rank.queues[0].after(position);
            }
        }
        (forward, backward, weight)
    }

    /// The first task of the witness that has not run, where it is in the forward queue.
    fn turn(&mut self, r: usize, reserve: &Reserve) -> Option<u32> {
        let witness = reserve.witness(r);
        let first = &mut self.first[r];
        while witness.get(*first).is_some_and(|&t| self.executed[t as usize]) {
            *first += 1;
        }
        let task = *witness.get(*first)? as usize;
        let position = self.position[task];
        (self.lane[task] == 0 && self.ranks[r].queues[0].contains(position)).then_some(position)
    }

    /// The most urgent task in the forward queue after `position` that takes no memory.
    fn next_release(&self, r: usize, mut position: u32) -> Option<u32> {
        let rank = &self.ranks[r];
        loop {
            position = rank.queues[0].after(position)?;
            let task = rank.by_priority[position as usize] as usize;
            if self.problem.kind[task] != TaskKind::Forward {
                return Some(position);
            }
        }
    }

    #[inline]
    fn place(&mut self, r: usize, task: usize, end: f64, reserve: &mut Reserve) {
        reserve.run(r, task);
        self.executed[task] = true;
        self.placed.push(task as u32);
        let rank = &mut self.ranks[r];
        rank.last_was_forward = self.problem.kind[task] == TaskKind::Forward;
        (rank.free, rank.wake) = (end, end);
        for &(s, comm) in self.problem.succs.of_task(task) {
            let s = s as usize;
            self.ready[s] = self.ready[s].max(end + comm);
            self.waiting[s] -= 1;
            if self.waiting[s] == 0 {
                let other = &mut self.ranks[self.problem.rank[s] as usize];
                other.arriving.push((self.ready[s], s as u32));
                other.wake = other.wake.min(self.ready[s].max(other.free));
            }
        }
    }
}
