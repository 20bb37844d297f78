//! Moves on critical blocks, and estimates of the makespan they give.
//!
//! A critical path consists of blocks: runs of tasks that follow each other on one rank. An order can only get shorter if a task
//! leaves the inside of a block for one of its ends, so these are the moves (N6: Balas and Vazacopoulos 1998; the swaps of the
//! first or last two tasks alone are N5: Nowicki and Smutnicki 1996). If memory or a dependency stands in the way, the task moves
//! as far as it can. The estimate of a move is the longest path through the tasks it shifts.

mod estimate;
mod strategies;

use std::ops::RangeInclusive;

use rand::Rng;
use rand::seq::IteratorRandom;
use rand_chacha::ChaCha8Rng;

use super::change::{PairChoice, Shift};
use super::disjunctive_graph::DisjunctiveGraph;
use strategies::{BlockedMove, MAX_HELD};

/// Longest distance of a move, in places on its rank.
const MAX_DISTANCE: usize = 48;
/// Moves up to this distance are always rated.
const ALWAYS_RATED: usize = 8;

/// A step of a walk: it changes the strategies of up to two pairs, then the order of one rank.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Move {
    /// New strategies, in the order in which they change.
    pub(super) choices: [Option<PairChoice>; 2],
    /// The change of order.
    pub(super) shift: Option<Shift>,
}

impl Move {
    fn choose(choices: [Option<PairChoice>; 2]) -> Self {
        Self { choices, shift: None }
    }
}

/// A move with the estimated makespan after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RatedMove {
    pub(super) step: Move,
    pub(super) seconds: f64,
}

/// The moves of one step. The arrays are reused from step to step.
#[derive(Default)]
pub(super) struct CriticalMoves {
    pub(super) rated: Vec<RatedMove>,
    /// A critical path.
    path: Vec<u32>,
    held: Vec<u32>,
    /// Place on its rank of the first task of the current block.
    front: usize,
    /// The tasks of the current block without their rank.
    detached: Vec<DetachedTask>,
    heads: Vec<f64>,
    /// A random sample of the moves that memory forbids.
    blocked: Vec<BlockedMove>,
    seen_blocked: usize,
}

/// The times of a task as its dependencies alone give them, without the other tasks of its rank.
#[derive(Debug, Clone, Copy)]
struct DetachedTask {
    /// When its inputs arrive.
    arrival_s: f64,
    /// The longest path from its end.
    delivery_s: f64,
}

impl CriticalMoves {
    /// Collects the moves on one critical path; a random one if there are several.
    pub(super) fn collect(&mut self, graph: &DisjunctiveGraph<'_>, rng: &mut ChaCha8Rng) {
        self.trace(graph, rng);
        self.rated.clear();
        self.blocked.clear();
        self.seen_blocked = 0;
        let mut first = 0;
        while first < self.path.len() {
            let mut last = first;
            while last + 1 < self.path.len()
                && graph.after(self.path[last] as usize) == Some(self.path[last + 1] as usize)
            {
                last += 1;
            }
            if last > first {
                self.block(graph, first..=last, rng);
            }
            first = last + 1;
        }
        if !graph.fits() {
            self.free_memory(graph, rng);
        }
        if graph.problem.has_choice {
            self.make_room(graph);
            self.faster(graph, rng);
            if rng.random_range(0..10) == 0 {
                self.smaller(graph, rng);
            }
        }
    }

    /// Where memory is exceeded, rates moving forwards later and releases earlier.
    fn free_memory(&mut self, graph: &DisjunctiveGraph<'_>, rng: &mut ChaCha8Rng) {
        let problem = graph.problem;
        for rank in 0..problem.ranks {
            let Some(place) = graph.overfull(rank).choose(rng) else { continue };
            let list = &graph.order[rank];
            let gives = |i: &usize| graph.costs.release[list[*i] as usize] > 0;
            let releases: Vec<usize> =
                (place + 1..list.len()).filter(gives).take(MAX_HELD).collect();
            let Some(&next) = releases.first() else { continue };
            let mut held = std::mem::take(&mut self.held);
            graph.held_at(rank, place, MAX_HELD, &mut held);
            for &pair in &held {
                let from = graph.place[problem.pairs[pair as usize].forward.index()];
                self.rate_anywhere(graph, Shift { rank: rank as u32, from, to: next as u32 });
            }
            self.held = held;
            for from in releases {
                let (from, to) = (from as u32, place as u32);
                self.rate_anywhere(graph, Shift { rank: rank as u32, from, to });
            }
        }
    }

    /// Rates a move of a task that need not be critical.
    fn rate_anywhere(&mut self, graph: &DisjunctiveGraph<'_>, shift: Shift) {
        let Some(shift) = allowed(graph, shift) else { return };
        let (low, high) = (shift.from.min(shift.to) as usize, shift.from.max(shift.to) as usize);
        self.front = low;
        self.detach(graph, &graph.order[shift.rank as usize][low..=high]);
        let path = self.estimate(graph, shift).max(graph.makespan());
        self.push(graph, shift, path);
    }

    /// The times of some tasks without their rank.
    fn detach(&mut self, graph: &DisjunctiveGraph<'_>, tasks: &[u32]) {
        let detached = |&t: &u32| DetachedTask {
            arrival_s: graph.arrival(t as usize),
            delivery_s: graph.delivery(t as usize),
        };
        self.detached.clear();
        self.detached.extend(tasks.iter().map(detached));
    }

    /// Adds a move after which the longest path is `path`.
    fn push(&mut self, graph: &DisjunctiveGraph<'_>, shift: Shift, path: f64) {
        let step = Move { shift: Some(shift), ..Move::default() };
        self.rated.push(RatedMove { step, seconds: path + graph.toll(shift) });
    }

    /// Traces a random critical path from start to end.
    fn trace(&mut self, graph: &DisjunctiveGraph<'_>, rng: &mut ChaCha8Rng) {
        let (head, dur) = (&graph.head, &graph.costs.dur);
        let makespan = graph.makespan();
        self.path.clear();
        let mut seen = 0;
        let mut at = None;
        let mut draw = |slot: &mut Option<usize>, candidate: usize| {
            seen += 1;
            if rng.random_range(0..seen) == 0 {
                *slot = Some(candidate);
            }
        };
        for list in &graph.order {
            if let Some(&t) = list.last()
                && head[t as usize] + dur[t as usize] == makespan
            {
                draw(&mut at, t as usize);
            }
        }
        while let Some(t) = at {
            self.path.push(t as u32);
            at = None;
            let mut seen = 0;
            let mut draw = |candidate: usize| {
                seen += 1;
                if rng.random_range(0..seen) == 0 {
                    at = Some(candidate);
                }
            };
            if head[t] == 0.0 {
                break;
            }
            let own = graph.before(t);
            if let Some(p) = own
                && head[p] + dur[p] == head[t]
            {
                draw(p);
            }
            for &(p, comm) in graph.problem.preds.of_task(t) {
                let p = p as usize;
                if Some(p) != own && head[p] + dur[p] + comm == head[t] {
                    draw(p);
                }
            }
        }
        self.path.reverse();
    }

    /// Rates moves of the tasks of one block to its front and to its back. `block` is a range of the path.
    fn block(
        &mut self,
        graph: &DisjunctiveGraph<'_>,
        block: RangeInclusive<usize>,
        rng: &mut ChaCha8Rng,
    ) {
        let (first, last) = (*block.start(), *block.end());
        let rank = graph.problem.rank[self.path[first] as usize];
        let place = |i: usize| graph.place[self.path[i] as usize];
        let (front, back) = (place(first), place(last));
        // Moves to the very start or end of the path gain nothing.
        let at_start = first == 0;
        let at_end = last + 1 == self.path.len();
        self.front = front as usize;
        let path = std::mem::take(&mut self.path);
        self.detach(graph, &path[block]);
        self.path = path;
        for from in front..=back {
            if from > front && !at_start && is_rated((from - front) as usize, rng) {
                self.rate(graph, Shift { rank, from, to: front }, rng);
            }
            if from < back && !at_end && is_rated((back - from) as usize, rng) {
                // The swap of a block of two was rated as a move to the front.
                let swap = from + 1 == back && from == front && !at_start;
                if !swap {
                    self.rate(graph, Shift { rank, from, to: back }, rng);
                }
            }
        }
    }

    /// Rates a move as far as dependencies on the rank and memory allow it.
    fn rate(&mut self, graph: &DisjunctiveGraph<'_>, shift: Shift, rng: &mut ChaCha8Rng) {
        let possible = allowed(graph, shift);
        if let Some(shift) = possible {
            let path = self.estimate(graph, shift);
            self.push(graph, shift, path);
        }
        if graph.problem.has_choice
            && shift.to < shift.from
            && possible.is_none_or(|p| p.to > shift.to)
            && let Some(blocked) = independent(graph, shift)
            && possible.is_none_or(|p| p.to > blocked.to)
        {
            self.remember_blocked(graph, blocked, rng);
        }
    }
}

/// True if a move over this distance is rated in this step: short moves always, long ones now and then.
fn is_rated(distance: usize, rng: &mut ChaCha8Rng) -> bool {
    distance <= ALWAYS_RATED || (distance <= MAX_DISTANCE && rng.random_range(0..4) == 0)
}

/// A move as far as memory and the task's dependencies on its own rank allow; `None` if the task cannot move.
pub(super) fn allowed(graph: &DisjunctiveGraph<'_>, shift: Shift) -> Option<Shift> {
    graph.fitting(independent(graph, shift)?)
}

/// A move as far as the task's dependencies on its own rank allow; `None` if the task cannot move.
fn independent(graph: &DisjunctiveGraph<'_>, mut shift: Shift) -> Option<Shift> {
    let problem = graph.problem;
    let t = graph.order[shift.rank as usize][shift.from as usize] as usize;
    let place = |other: u32| {
        let other = other as usize;
        (problem.rank[other] == shift.rank).then(|| graph.place[other])
    };
    if shift.from < shift.to {
        let next = problem.succs.of_task(t).iter().filter_map(|s| place(s.0)).min();
        shift.to = shift.to.min(next.map_or(u32::MAX, |next| next - 1));
    } else {
        let last = problem.preds.of_task(t).iter().filter_map(|p| place(p.0)).max();
        shift.to = shift.to.max(last.map_or(0, |last| last + 1));
    }
    (shift.to != shift.from).then_some(shift)
}
