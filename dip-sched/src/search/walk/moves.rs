//! Moves on critical blocks and what they are estimated to give.
//!
//! A critical path falls into blocks of tasks that follow each other on one rank. An order only gets shorter where a task
//! leaves the inside of a block for one of its ends, so these are the moves (N6: Balas and Vazacopoulos 1998; its part that
//! swaps the first or last two is N5: Nowicki and Smutnicki 1996). Where memory or a dependency stands in the way, the task
//! goes as far as it may. A move is estimated by the longest path through the tasks it shifts.

use rand::Rng;
use rand::seq::IteratorRandom;
use rand_chacha::ChaCha8Rng;

use super::selection::{Selection, Shift};

/// Longest distance of a move on the rank.
const REACH: usize = 48;
/// Distance up to which every move is rated.
const NEAR: usize = 8;
/// Tasks of a path whose strategies are looked at in one step.
const MOST_ON_PATH: usize = 24;
/// Pairs that are asked to give way in one place.
const MOST_HELD: usize = 8;
/// Forwards kept back by memory for which other pairs are asked to give way in one step.
const MOST_BLOCKED: usize = 6;

/// What a step changes: first the strategies of up to two pairs, then the order of a rank.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::search) struct Move {
    /// Pairs with their new strategies, in the order in which they change.
    pub(in crate::search) choices: [Option<(u32, u16)>; 2],
    /// The change of order.
    pub(in crate::search) shift: Option<Shift>,
}

impl Move {
    fn choose(choices: [Option<(u32, u16)>; 2]) -> Self {
        Self { choices, shift: None }
    }
}

/// A move with the makespan it is estimated to give.
#[derive(Debug, Clone, Copy)]
pub(in crate::search) struct Rated {
    pub(in crate::search) step: Move,
    pub(in crate::search) seconds: f64,
}

/// Finds and rates moves; keeps its arrays from one step to the next.
#[derive(Default)]
pub(in crate::search) struct Moves {
    pub(in crate::search) rated: Vec<Rated>,
    path: Vec<u32>,
    held: Vec<u32>,
    /// Place on its rank of the first task of the block at hand.
    front: usize,
    /// When the inputs of each task of the block arrive, and the longest way from its outputs, its rank aside.
    ways: Vec<(f64, f64)>,
    heads: Vec<f64>,
    /// Moves that memory forbids, with their estimates: a few, drawn from all of them.
    blocked: Vec<(Shift, f64)>,
    seen_blocked: usize,
}

impl Moves {
    /// The moves on one critical path, drawn where there are several.
    pub(in crate::search) fn collect(&mut self, selection: &Selection<'_>, rng: &mut ChaCha8Rng) {
        self.trace(selection, rng);
        self.rated.clear();
        self.blocked.clear();
        self.seen_blocked = 0;
        let mut first = 0;
        while first < self.path.len() {
            let mut last = first;
            while last + 1 < self.path.len()
                && selection.after(self.path[last] as usize) == Some(self.path[last + 1] as usize)
            {
                last += 1;
            }
            if last > first {
                self.block(selection, (first, last), rng);
            }
            first = last + 1;
        }
        if !selection.fits() {
            self.empty(selection, rng);
        }
        if selection.problem.has_choice {
            self.make_room(selection);
            self.faster(selection, rng);
            if rng.random_range(0..10) == 0 {
                self.smaller(selection, rng);
            }
        }
    }

    /// Where memory is missing: forwards that come later, and releases that come earlier.
    fn empty(&mut self, selection: &Selection<'_>, rng: &mut ChaCha8Rng) {
        let problem = selection.problem;
        for rank in 0..problem.ranks {
            let Some(place) = selection.overfull(rank).choose(rng) else { continue };
            let list = &selection.order[rank];
            let gives = |i: &usize| selection.costs.release[list[*i] as usize] > 0;
            let releases: Vec<usize> =
                (place + 1..list.len()).filter(gives).take(MOST_HELD).collect();
            let Some(&next) = releases.first() else { continue };
            let mut held = std::mem::take(&mut self.held);
            selection.held_at(rank, place, MOST_HELD, &mut held);
            for &pair in &held {
                let from = selection.place[problem.pairs[pair as usize].forward.index()];
                self.rate_anywhere(selection, Shift { rank: rank as u32, from, to: next as u32 });
            }
            self.held = held;
            for from in releases {
                let (from, to) = (from as u32, place as u32);
                self.rate_anywhere(selection, Shift { rank: rank as u32, from, to });
            }
        }
    }

    /// Rates a move of any task.
    fn rate_anywhere(&mut self, selection: &Selection<'_>, shift: Shift) {
        let Some(shift) = allowed(selection, shift) else { return };
        let (low, high) = (shift.from.min(shift.to) as usize, shift.from.max(shift.to) as usize);
        self.front = low;
        self.ways.clear();
        for &t in &selection.order[shift.rank as usize][low..=high] {
            self.ways.push((selection.arrival(t as usize), selection.delivery(t as usize)));
        }
        let path = self.estimate(selection, shift).max(selection.makespan());
        self.push(selection, shift, path);
    }

    /// Takes in a move after which the longest path is `path`.
    fn push(&mut self, selection: &Selection<'_>, shift: Shift, path: f64) {
        let step = Move { shift: Some(shift), ..Move::default() };
        self.rated.push(Rated { step, seconds: path + selection.toll(shift) });
    }

    /// Faster strategies of pairs on the path, as far as memory allows, or could if another pair took a smaller one.
    fn faster(&mut self, selection: &Selection<'_>, rng: &mut ChaCha8Rng) {
        let problem = selection.problem;
        let makespan = selection.makespan();
        let sampled = self.path.len() > MOST_ON_PATH;
        for i in 0..self.path.len().min(MOST_ON_PATH) {
            let at = if sampled { rng.random_range(0..self.path.len()) } else { i };
            let t = self.path[at] as usize;
            let pair = problem.pair[t] as usize;
            for choice in 0..problem.strands[pair].len() as u16 {
                let seconds = through(selection, pair, choice);
                if choice == selection.choice[pair] || seconds >= makespan {
                    continue;
                }
                let faster = (pair as u32, choice);
                if selection.fits_choice(pair, choice) {
                    let step = Move::choose([Some(faster), None]);
                    self.rated.push(Rated { step, seconds });
                    continue;
                }
                let rank = problem.rank[t] as usize;
                let p = &problem.pairs[pair];
                let (first, last) = (p.forward.index(), p.release().index());
                let place = rng.random_range(selection.place[first]..=selection.place[last]);
                self.give_way(selection, (rank, place as usize), |selection, other, less| {
                    let fits = other != pair && selection.fits_trade((pair, choice), (other, less));
                    let smaller = (other as u32, less);
                    fits.then(|| (Move::choose([Some(smaller), Some(faster)]), seconds))
                });
            }
        }
    }

    /// Moves that need another pair to take a smaller strategy: one of those held at a place of a rank.
    fn give_way(
        &mut self,
        selection: &Selection<'_>,
        (rank, place): (usize, usize),
        step: impl Fn(&Selection<'_>, usize, u16) -> Option<(Move, f64)>,
    ) {
        let mut held = std::mem::take(&mut self.held);
        selection.held_at(rank, place, MOST_HELD, &mut held);
        for &other in &held {
            let other = other as usize;
            let strands = &selection.problem.strands[other];
            let now = strands[selection.choice[other] as usize].bytes;
            for less in (0..strands.len() as u16).filter(|&c| strands[c as usize].bytes < now) {
                let seconds = through(selection, other, less);
                if seconds < selection.makespan()
                    && let Some((step, own)) = step(selection, other, less)
                {
                    self.rated.push(Rated { step, seconds: seconds.max(own) });
                }
            }
        }
        self.held = held;
    }

    /// Smaller strategies of a few pairs that have the time: they make room for other moves.
    fn smaller(&mut self, selection: &Selection<'_>, rng: &mut ChaCha8Rng) {
        let problem = selection.problem;
        let makespan = selection.makespan();
        for _ in 0..1 {
            let rank = problem.rank[self.path[rng.random_range(0..self.path.len())] as usize];
            let list = &selection.order[rank as usize];
            if problem.budget[rank as usize].is_none() {
                continue;
            }
            let pair = problem.pair[list[rng.random_range(0..list.len())] as usize] as usize;
            let strands = &problem.strands[pair];
            let choice = rng.random_range(0..strands.len()) as u16;
            if strands[choice as usize].bytes < strands[selection.choice[pair] as usize].bytes {
                let seconds = through(selection, pair, choice).max(makespan);
                self.rated.push(Rated {
                    step: Move::choose([Some((pair as u32, choice)), None]),
                    seconds,
                });
            }
        }
    }

    /// A critical path from start to end.
    fn trace(&mut self, selection: &Selection<'_>, rng: &mut ChaCha8Rng) {
        let (head, dur) = (&selection.head, &selection.costs.dur);
        let makespan = selection.makespan();
        self.path.clear();
        let mut seen = 0;
        let mut at = None;
        let mut draw = |slot: &mut Option<usize>, candidate: usize| {
            seen += 1;
            if rng.random_range(0..seen) == 0 {
                *slot = Some(candidate);
            }
        };
        for list in &selection.order {
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
            let own = selection.before(t);
            if let Some(p) = own
                && head[p] + dur[p] == head[t]
            {
                draw(p);
            }
            for &(p, comm) in selection.problem.preds.of_task(t) {
                let p = p as usize;
                if Some(p) != own && head[p] + dur[p] + comm == head[t] {
                    draw(p);
                }
            }
        }
        self.path.reverse();
    }

    /// Moves of the tasks of one block to its front and to its back.
    fn block(
        &mut self,
        selection: &Selection<'_>,
        (first, last): (usize, usize),
        rng: &mut ChaCha8Rng,
    ) {
        let rank = selection.problem.rank[self.path[first] as usize];
        let place = |i: usize| selection.place[self.path[i] as usize];
        let (front, back) = (place(first), place(last));
        // What comes before the first block, or after the last, gives nothing.
        let at_start = first == 0;
        let at_end = last + 1 == self.path.len();
        self.front = front as usize;
        self.ways.clear();
        for &t in &self.path[first..=last] {
            self.ways.push((selection.arrival(t as usize), selection.delivery(t as usize)));
        }
        for from in front..=back {
            if from > front && !at_start && is_rated((from - front) as usize, rng) {
                self.rate(selection, Shift { rank, from, to: front }, rng);
            }
            if from < back && !at_end && is_rated((back - from) as usize, rng) {
                // A swap of two has been rated from its other side.
                let swap = from + 1 == back && from == front && !at_start;
                if !swap {
                    self.rate(selection, Shift { rank, from, to: back }, rng);
                }
            }
        }
    }

    /// Rates a move, shortened to what dependencies on the rank and memory allow.
    fn rate(&mut self, selection: &Selection<'_>, shift: Shift, rng: &mut ChaCha8Rng) {
        let possible = allowed(selection, shift);
        if let Some(shift) = possible {
            let path = self.estimate(selection, shift);
            self.push(selection, shift, path);
        }
        if selection.problem.has_choice
            && shift.to < shift.from
            && possible.is_none_or(|p| p.to > shift.to)
            && let Some(wanted) = independent(selection, shift)
            && possible.is_none_or(|p| p.to > wanted.to)
        {
            self.block_of_memory(selection, wanted, rng);
        }
    }

    /// Keeps a move of a forward that only memory forbids, where it would help and is drawn.
    fn block_of_memory(&mut self, selection: &Selection<'_>, wanted: Shift, rng: &mut ChaCha8Rng) {
        let t = selection.order[wanted.rank as usize][wanted.from as usize] as usize;
        if selection.costs.acquire[t] == 0 {
            return;
        }
        self.seen_blocked += 1;
        let slot = if self.blocked.len() < MOST_BLOCKED {
            self.blocked.len()
        } else {
            rng.random_range(0..self.seen_blocked)
        };
        if slot < MOST_BLOCKED {
            let kept = (wanted, self.estimate(selection, wanted));
            match self.blocked.get_mut(slot) {
                Some(other) => *other = kept,
                None => self.blocked.push(kept),
            }
        }
    }

    /// A forward that memory keeps from the front goes there once a pair in its way takes a smaller strategy.
    fn make_room(&mut self, selection: &Selection<'_>) {
        for i in 0..self.blocked.len() {
            let (wanted, seconds) = self.blocked[i];
            let at = (wanted.rank as usize, wanted.from as usize);
            self.give_way(selection, at, |selection, other, less| {
                let choices = [Some((other as u32, less)), None];
                let step = Move { choices, shift: Some(wanted) };
                selection.fits_with(wanted, other, less).then_some((step, seconds))
            });
        }
    }

    /// The longest path through the shifted tasks after a move.
    fn estimate(&mut self, selection: &Selection<'_>, shift: Shift) -> f64 {
        let list = &selection.order[shift.rank as usize];
        let (from, to) = (shift.from as usize, shift.to as usize);
        let dur = &selection.costs.dur;
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
            selection.head[p] + dur[p]
        });
        self.heads.clear();
        let moved = list[from] as usize;
        let succs = selection.problem.succs.of_task(moved);
        let preds = selection.problem.preds.of_task(moved);
        for i in low..=high {
            let t = list[old(i)] as usize;
            let mut head = self.ways[old(i) - self.front].0.max(free);
            if from > to && i > to {
                // The moved task may feed those it now precedes.
                for &(s, comm) in succs {
                    if s as usize == t {
                        head = head.max(self.heads[0] + dur[moved] + comm);
                    }
                }
            }
            self.heads.push(head);
            free = head + dur[t];
        }
        let mut way = list.get(high + 1).map_or(0.0, |&s| {
            let s = s as usize;
            dur[s] + selection.tail[s]
        });
        let mut longest = 0.0f64;
        let mut tail_of_moved = 0.0;
        for i in (low..=high).rev() {
            let t = list[old(i)] as usize;
            let mut tail = self.ways[old(i) - self.front].1.max(way);
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
            way = dur[t] + tail;
        }
        longest
    }
}

/// Whether a move over so many tasks is rated in this step: short ones always, long ones now and then.
fn is_rated(distance: usize, rng: &mut ChaCha8Rng) -> bool {
    distance <= NEAR || (distance <= REACH && rng.random_range(0..4) == 0)
}

/// The longest path through a pair under another strategy.
fn through(selection: &Selection<'_>, pair: usize, choice: u16) -> f64 {
    let (p, s) = (&selection.problem.pairs[pair], selection.problem.strands[pair][choice as usize]);
    let path = |t: usize, dur: f64| selection.head[t] + dur + selection.tail[t];
    let backward = p.backward.map_or(0.0, |b| path(b.index(), s.backward_s));
    path(p.forward.index(), s.forward_s).max(backward)
}

/// A move as far as the dependencies of the task on its own rank and memory allow; `None` where it stays.
pub(in crate::search) fn allowed(selection: &Selection<'_>, shift: Shift) -> Option<Shift> {
    selection.fitting(independent(selection, shift)?)
}

/// A move as far as the dependencies of the task on its own rank allow; `None` where it stays.
fn independent(selection: &Selection<'_>, mut shift: Shift) -> Option<Shift> {
    let problem = selection.problem;
    let t = selection.order[shift.rank as usize][shift.from as usize] as usize;
    let place = |other: u32| {
        let other = other as usize;
        (problem.rank[other] == shift.rank).then(|| selection.place[other])
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
