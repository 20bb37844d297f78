//! Moves that change memory strategies: faster ones on the critical path, smaller ones that make room.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{CriticalMoves, Move, RatedMove};
use crate::search::walk::change::{PairChoice, Shift};
use crate::search::walk::disjunctive_graph::DisjunctiveGraph;

/// Tasks of the critical path whose strategies are considered in one step.
const MAX_PATH_TASKS: usize = 24;
/// Pairs at one place of a rank that may give way.
pub(super) const MAX_HELD: usize = 8;
/// Blocked moves for which other pairs may give way in one step.
const MAX_BLOCKED: usize = 6;

/// A move that only memory forbids, and its estimate.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockedMove {
    shift: Shift,
    seconds: f64,
}

/// A place on a rank.
#[derive(Debug, Clone, Copy)]
struct RankPlace {
    rank: usize,
    index: usize,
}

impl CriticalMoves {
    /// Faster strategies of pairs on the path. Where memory does not allow one, another pair takes a smaller strategy.
    pub(super) fn faster(&mut self, graph: &DisjunctiveGraph<'_>, rng: &mut ChaCha8Rng) {
        let problem = graph.problem;
        let makespan = graph.makespan();
        let sampled = self.path.len() > MAX_PATH_TASKS;
        for i in 0..self.path.len().min(MAX_PATH_TASKS) {
            let at = if sampled { rng.random_range(0..self.path.len()) } else { i };
            let t = self.path[at] as usize;
            let pair = problem.pair[t] as usize;
            for choice in 0..problem.strategies[pair].len() as u16 {
                let faster = PairChoice { pair: pair as u32, choice };
                let seconds = longest_through(graph, faster);
                if choice == graph.choice[pair] || seconds >= makespan {
                    continue;
                }
                if graph.fits_choice(faster) {
                    let step = Move::choose([Some(faster), None]);
                    self.rated.push(RatedMove { step, seconds });
                    continue;
                }
                let p = &problem.pairs[pair];
                let (first, last) = (p.forward.index(), p.release().index());
                let index = rng.random_range(graph.place[first]..=graph.place[last]) as usize;
                let place = RankPlace { rank: problem.rank[t] as usize, index };
                self.give_way(graph, place, |graph, smaller| {
                    let fits = smaller.pair != faster.pair && graph.fits_trade(faster, smaller);
                    fits.then(|| (Move::choose([Some(smaller), Some(faster)]), seconds))
                });
            }
        }
    }

    /// Moves that need a pair held at `place` to take a smaller strategy. `step` builds the move with its own estimate.
    fn give_way(
        &mut self,
        graph: &DisjunctiveGraph<'_>,
        place: RankPlace,
        step: impl Fn(&DisjunctiveGraph<'_>, PairChoice) -> Option<(Move, f64)>,
    ) {
        let mut held = std::mem::take(&mut self.held);
        graph.held_at(place.rank, place.index, MAX_HELD, &mut held);
        for &pair in &held {
            let strategies = &graph.problem.strategies[pair as usize];
            let now = strategies[graph.choice[pair as usize] as usize].bytes;
            let smaller =
                (0..strategies.len() as u16).filter(|&c| strategies[c as usize].bytes < now);
            for smaller in smaller.map(|choice| PairChoice { pair, choice }) {
                let seconds = longest_through(graph, smaller);
                if seconds < graph.makespan()
                    && let Some((step, own)) = step(graph, smaller)
                {
                    self.rated.push(RatedMove { step, seconds: seconds.max(own) });
                }
            }
        }
        self.held = held;
    }

    /// A smaller strategy of a random pair that has the time: it makes room for other moves.
    pub(super) fn smaller(&mut self, graph: &DisjunctiveGraph<'_>, rng: &mut ChaCha8Rng) {
        let problem = graph.problem;
        let makespan = graph.makespan();
        let rank = problem.rank[self.path[rng.random_range(0..self.path.len())] as usize];
        let list = &graph.order[rank as usize];
        if problem.budget[rank as usize].is_none() {
            return;
        }
        let pair = problem.pair[list[rng.random_range(0..list.len())] as usize];
        let strategies = &problem.strategies[pair as usize];
        let choice = rng.random_range(0..strategies.len()) as u16;
        let now = graph.choice[pair as usize];
        if strategies[choice as usize].bytes < strategies[now as usize].bytes {
            let smaller = PairChoice { pair, choice };
            let seconds = longest_through(graph, smaller).max(makespan);
            self.rated.push(RatedMove { step: Move::choose([Some(smaller), None]), seconds });
        }
    }

    /// Remembers a move of a forward that only memory forbids, as a random sample of all such moves.
    pub(super) fn remember_blocked(
        &mut self,
        graph: &DisjunctiveGraph<'_>,
        shift: Shift,
        rng: &mut ChaCha8Rng,
    ) {
        let t = graph.order[shift.rank as usize][shift.from as usize] as usize;
        if graph.costs.acquire[t] == 0 {
            return;
        }
        self.seen_blocked += 1;
        let slot = if self.blocked.len() < MAX_BLOCKED {
            self.blocked.len()
        } else {
            rng.random_range(0..self.seen_blocked)
        };
        if slot < MAX_BLOCKED {
            let kept = BlockedMove { shift, seconds: self.estimate(graph, shift) };
            match self.blocked.get_mut(slot) {
                Some(other) => *other = kept,
                None => self.blocked.push(kept),
            }
        }
    }

    /// Moves blocked forwards once a pair in their way takes a smaller strategy.
    pub(super) fn make_room(&mut self, graph: &DisjunctiveGraph<'_>) {
        for i in 0..self.blocked.len() {
            let BlockedMove { shift, seconds } = self.blocked[i];
            let place = RankPlace { rank: shift.rank as usize, index: shift.from as usize };
            self.give_way(graph, place, |graph, smaller| {
                let step = Move { choices: [Some(smaller), None], shift: Some(shift) };
                graph.fits_with(shift, smaller).then_some((step, seconds))
            });
        }
    }
}

/// The longest path through a pair under another strategy.
fn longest_through(graph: &DisjunctiveGraph<'_>, PairChoice { pair, choice }: PairChoice) -> f64 {
    let p = &graph.problem.pairs[pair as usize];
    let s = graph.problem.strategies[pair as usize][choice as usize];
    let path = |t: usize, dur: f64| graph.head[t] + dur + graph.tail[t];
    let backward = p.backward.map_or(0.0, |b| path(b.index(), s.backward_s));
    path(p.forward.index(), s.forward_s).max(backward)
}
