//! Dual-queue stage interleaving (paper section 2, phase 2): from priorities to an order, under memory limits.
//!
//! Every rank has a queue of forwards, one of backwards and one of weight tasks. The rank that can start first goes next. If a
//! forward and a backward can both start, they alternate as in 1F1B; weight tasks fill the gaps. A forward waits until memory allows
//! it (see [`super::reserve`]).
//!
//! A queue is a bit set over the tasks of a rank in the order of their priorities, so the most urgent task is the first set bit.
//! Tasks whose inputs have not arrived are kept in a list of their own. All arrays are allocated once; a run allocates nothing.

mod queue;

use dip_core::TaskKind;

use super::reserve::Reserve;
use crate::problem::{Order, Problem, TaskCosts};
use queue::Queue;

/// The queue of weight tasks; 0 holds forwards and 1 backwards.
const WEIGHT_QUEUE: u8 = 2;

/// The order in which a rank looks at its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueRule {
    /// Forwards and backwards alternate, as in the paper.
    Alternate,
    /// Backwards go first.
    BackwardFirst,
    /// Forwards go first, as far as memory allows.
    ForwardFirst,
    /// Forwards and backwards share one queue: priority alone decides.
    Single,
    /// All tasks share one queue.
    SingleWithWeights,
}

/// The rules of a run, except the priorities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rules {
    /// The order in which a rank looks at its queues.
    pub(crate) queue_rule: QueueRule,
    /// A rank waits for a more urgent task that arrives within this share of the duration of its next task.
    pub(crate) patience: f64,
    /// The same share if the next task is a weight task.
    pub(crate) weight_patience: f64,
    /// Number of forwards that are tried under tight memory, the most urgent first. 1 is strict back-pressure.
    pub(crate) tries: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { queue_rule: QueueRule::Alternate, patience: 0.0, weight_patience: 0.0, tries: 8 }
    }
}

/// The settings of a run, except costs and keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunSettings<'a> {
    pub(crate) rules: Rules,
    /// Seconds on the longest path from the end of each task to the end of the iteration.
    pub(crate) tail: &'a [f64],
    /// The run ends as soon as its makespan cannot be below this.
    pub(crate) cutoff_s: f64,
}

/// The most urgent allowed position of each queue.
#[derive(Debug, Clone, Copy)]
struct QueueHeads {
    forward: Option<u32>,
    backward: Option<u32>,
    weight: Option<u32>,
}

/// The state of a rank during a run.
#[derive(Debug, Clone, Default)]
struct RankState {
    /// The end of its last task.
    free: f64,
    /// When it can decide next; infinite if only other ranks can change that.
    wake: f64,
    last_was_forward: bool,
    /// Tasks whose inputs arrive later, each with the time of arrival.
    arriving: Vec<(f64, u32)>,
    /// Bit sets of the three queues.
    queues: [Queue; 3],
    /// The tasks by priority.
    by_priority: Vec<u32>,
}

/// Interleaves tasks by priority. Each thread keeps one.
pub(crate) struct Interleaver<'a> {
    problem: &'a Problem,
    ranks: Vec<RankState>,
    /// Unfinished predecessors of each task.
    waiting: Vec<u32>,
    in_degree: Vec<u32>,
    /// When the inputs of each task have arrived.
    ready: Vec<f64>,
    /// The queue of each task.
    queue: Vec<u8>,
    /// Position of each task among the tasks of its rank by priority.
    position: Vec<u32>,
    executed: Vec<bool>,
    /// For each rank, the index of the first task of the witness that has not run.
    first: Vec<usize>,
    /// Tasks in the order in which they run.
    placed: Vec<u32>,
    /// For each rank, the time of its remaining tasks plus the shortest path from any of them to the end.
    left: Vec<f64>,
    /// The sorted keys of one rank.
    sorted: Vec<u128>,
}

/// A key and a task as one number that sorts by key (`f64::total_cmp`), then by task.
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
            let queue = Queue::new(n);
            RankState {
                by_priority: problem.by_rank[r].clone(),
                arriving: Vec::with_capacity(n),
                queues: [queue.clone(), queue.clone(), queue],
                ..RankState::default()
            }
        };
        let in_degree = problem.in_degrees();
        Self {
            problem,
            ranks: (0..problem.ranks).map(rank).collect(),
            waiting: in_degree.clone(),
            in_degree,
            ready: vec![0.0; problem.n],
            queue: vec![0; problem.n],
            position: vec![0; problem.n],
            executed: vec![false; problem.n],
            first: vec![0; problem.ranks],
            placed: Vec::with_capacity(problem.n),
            left: vec![0.0; problem.ranks],
            sorted: Vec::with_capacity(problem.by_rank.iter().map(Vec::len).max().unwrap_or(0)),
        }
    }

    /// The order of the last run.
    pub(crate) fn order(&self) -> Order {
        let mut order: Order =
            self.problem.by_rank.iter().map(|tasks| Vec::with_capacity(tasks.len())).collect();
        for &t in &self.placed {
            order[self.problem.rank[t as usize] as usize].push(t);
        }
        order
    }

    /// Runs every task, the smallest key first. Returns the makespan, or `None` once it cannot be below the cutoff.
    pub(crate) fn run(
        &mut self,
        costs: &TaskCosts,
        reserve: &mut Reserve,
        keys: &[f64],
        RunSettings { rules, tail, cutoff_s }: RunSettings<'_>,
    ) -> Option<f64> {
        self.reset(keys, &rules, reserve);
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
            debug_assert!(now.is_finite(), "the witness always allows some rank to continue");
            let Some(task) = self.choose(r, now, costs, reserve, &rules) else { continue };
            let end = now + costs.dur[task];
            self.left[r] -= costs.dur[task];
            if end + tail[task].max(self.left[r]) >= cutoff_s {
                return None;
            }
            makespan = makespan.max(end);
            self.place(r, task, end, reserve);
        }
        Some(makespan)
    }

    /// Sets `left` of every rank to its whole load.
    fn load(&mut self, costs: &TaskCosts, tail: &[f64]) {
        for (left, tasks) in self.left.iter_mut().zip(&self.problem.by_rank) {
            let path = tasks.iter().map(|&t| tail[t as usize]).fold(f64::INFINITY, f64::min);
            let load: f64 = tasks.iter().map(|&t| costs.dur[t as usize]).sum();
            *left = (load + path) * (1.0 - 1e-9);
        }
    }

    /// Prepares a run: sorts the tasks by key and empties all queues.
    fn reset(&mut self, keys: &[f64], rules: &Rules, reserve: &mut Reserve) {
        reserve.reset();
        self.placed.clear();
        self.waiting.copy_from_slice(&self.in_degree);
        self.ready.fill(0.0);
        self.executed.fill(false);
        self.first.fill(0);
        let single = matches!(rules.queue_rule, QueueRule::Single | QueueRule::SingleWithWeights);
        for t in 0..self.problem.n {
            self.queue[t] = match self.problem.kind[t] {
                TaskKind::Forward => 0,
                TaskKind::Backward => u8::from(!single),
                TaskKind::Weight if rules.queue_rule == QueueRule::SingleWithWeights => 0,
                TaskKind::Weight => WEIGHT_QUEUE,
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

    /// The task that a rank starts now. `None` if it waits; its wake-up time is then updated.
    #[inline]
    fn choose(
        &mut self,
        r: usize,
        now: f64,
        costs: &TaskCosts,
        reserve: &mut Reserve,
        rules: &Rules,
    ) -> Option<usize> {
        self.admit(r, now);
        let QueueHeads { forward, backward, weight } = self.heads(r, reserve, rules);
        let rank = &self.ranks[r];
        let heads = match rules.queue_rule {
            QueueRule::BackwardFirst => [backward, forward, weight],
            QueueRule::ForwardFirst => [forward, backward, weight],
            _ if rank.last_was_forward => [backward, forward, weight],
            _ => [forward, backward, weight],
        };
        let chosen = heads.into_iter().flatten().next();
        let rank = &mut self.ranks[r];
        let Some(position) = chosen else {
            rank.wake = rank.arriving.iter().map(|a| a.0).fold(f64::INFINITY, f64::min);
            return None;
        };
        let task = rank.by_priority[position as usize] as usize;
        let queue = self.queue[task];
        let patience = if queue == WEIGHT_QUEUE { rules.weight_patience } else { rules.patience };
        if patience > 0.0 {
            let until = now + patience * costs.dur[task];
            let more_urgent = |&&(_, t): &&(f64, u32)| {
                let other = self.queue[t as usize];
                other != WEIGHT_QUEUE
                    && (queue == WEIGHT_QUEUE || self.position[t as usize] < position)
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
        rank.queues[queue as usize].remove(position);
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
                rank.queues[self.queue[t as usize] as usize].insert(self.position[t as usize]);
            } else {
                i += 1;
            }
        }
    }

    /// The most urgent task of each queue that memory allows.
    #[inline]
    fn heads(&mut self, r: usize, reserve: &Reserve, rules: &Rules) -> QueueHeads {
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
                // In a shared queue, a task after a blocked forward may free memory.
                tries -= u32::from(self.problem.kind[task] == TaskKind::Forward);
                if tries == 0 {
                    forward =
                        self.next_of_witness(r, reserve).or_else(|| self.next_release(r, position));
                    break;
                }
                forward = rank.queues[0].after(position);
            }
        }
        QueueHeads { forward, backward, weight }
    }

    /// The first task of the witness that has not run, if it is in the forward queue.
    fn next_of_witness(&mut self, r: usize, reserve: &Reserve) -> Option<u32> {
        let witness = reserve.witness(r);
        let first = &mut self.first[r];
        while witness.get(*first).is_some_and(|&t| self.executed[t as usize]) {
            *first += 1;
        }
        let task = *witness.get(*first)? as usize;
        let position = self.position[task];
        (self.queue[task] == 0 && self.ranks[r].queues[0].contains(position)).then_some(position)
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

    /// Runs a task that ends at `end` and updates its successors.
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
