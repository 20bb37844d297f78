//! Local search over regular orders. Each chunk of each rank has a level of memory of its own.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::phases::Phases;
use crate::ordering::{Interleaver, MicrobatchSequences, RunSettings};
use crate::problem::{Choice, Problem, Solution};
use crate::search::chain::Chain;
use crate::search::level::{Level, Unfit};
use crate::search::{RngStream, Search};

/// Probability of drawing new levels of memory in a step.
const NEW_LEVELS: f64 = 0.3;

/// A chain of regular orders, each a small change of the one before.
pub(in crate::search) struct RegularChain<'a> {
    problem: &'a Problem,
    levels: &'a [Level],
    sequences: &'a MicrobatchSequences,
    rng: ChaCha8Rng,
    interleaver: Interleaver<'a>,
    keys: Vec<f64>,
    current: Phases,
    /// The makespan of the current order.
    current_s: f64,
    memory: MixedLevel,
    best: Option<Solution>,
}

/// A level of memory that mixes other levels.
struct MixedLevel {
    /// The level of each chunk of each rank, by its index.
    parts: Vec<usize>,
    /// The strategies of these levels.
    level: Level,
}

/// Where a chain starts.
#[derive(Clone, Copy)]
pub(in crate::search) enum Origin<'a> {
    /// Microbatches in the order of the batch.
    InOrder,
    /// The lightest microbatch passes the pipeline before all others.
    LightestAhead,
    /// Microbatches shuffled.
    Shuffled,
    /// The regular part of the previous plan.
    Previous(&'a Phases),
}

impl<'a> RegularChain<'a> {
    /// A chain at one level of memory.
    pub(in crate::search) fn new(
        search: &'a Search<'_>,
        level: usize,
        job: u64,
        origin: Origin<'_>,
    ) -> Self {
        let (problem, levels) = (search.problem, &search.levels[..]);
        let stream = match origin {
            Origin::Shuffled => RngStream::Restart,
            _ => RngStream::RegularChain,
        };
        let mut rng = search.rng(stream, job);
        let mut mixed = levels[level].clone();
        let head = problem.heads(&mixed.costs.dur);
        // Steps of the golden section cover the whole range, however few chains there are.
        let stretch = 1.0 + 9.0 * (0.618 * job as f64 + rng.random_range(0.0..0.2)).fract();
        let mut current = Phases::by_depth(problem, &head, stretch);
        match origin {
            Origin::InOrder => {}
            Origin::LightestAhead => current.send_lightest_ahead(problem, &mixed.costs.dur),
            Origin::Shuffled => current.shuffle(&mut rng),
            Origin::Previous(phases) => current = phases.clone(),
        }
        if !matches!(origin, Origin::InOrder) {
            let fitting = mixed.with_turns(problem, &search.sequences, current.turns());
            mixed = fitting.unwrap_or(mixed);
        }
        Self {
            problem,
            levels,
            sequences: &search.sequences,
            rng,
            interleaver: Interleaver::new(problem),
            keys: vec![0.0; problem.n],
            current,
            current_s: f64::INFINITY,
            memory: MixedLevel { parts: vec![level; problem.ranks * problem.chunks], level: mixed },
            best: None,
        }
    }

    /// New levels of memory, if they are drawn or a turn has changed. Memory is reserved for a sequence of the microbatches, so this
    /// sequence has to follow the turns.
    fn other_level(
        &mut self,
        next: &Phases,
        turn_changed: bool,
    ) -> Result<Option<MixedLevel>, Unfit> {
        let problem = self.problem;
        let drawn = self.levels.len() > 1 && self.rng.random_bool(NEW_LEVELS);
        let limited = problem.is_limited();
        let (sequences, turns) = (self.sequences, next.turns());
        let (parts, level) = if drawn {
            // Ranks hold different amounts, so each may have a level of its own.
            let parts = self.other_parts();
            let level = Level::for_turns(problem, self.mix(&parts), sequences, turns);
            (parts, level)
        } else if turn_changed && limited {
            (self.memory.parts.clone(), self.memory.level.with_turns(problem, sequences, turns))
        } else {
            return Ok(None);
        };
        Ok(Some(MixedLevel { parts, level: level.ok_or(Unfit)? }))
    }

    /// Draws a level for all chunks of a rank, for a chunk on all ranks, or for one chunk of one rank.
    fn other_parts(&mut self) -> Vec<usize> {
        let (ranks, chunks) = (self.problem.ranks, self.problem.chunks);
        let rng = &mut self.rng;
        let (rank, chunk) = (rng.random_range(0..ranks), rng.random_range(0..chunks));
        let level = rng.random_range(0..self.levels.len());
        let kind = rng.random_range(0..4);
        let mut parts = self.memory.parts.clone();
        for (i, part) in parts.iter_mut().enumerate() {
            let (own_rank, own_chunk) = (i / chunks == rank, i % chunks == chunk);
            let chosen = match kind {
                0 => own_rank && own_chunk,
                1 => own_chunk,
                _ => own_rank,
            };
            if chosen {
                *part = level;
            }
        }
        parts
    }

    /// The choice that takes the strategies of each chunk of each rank from its level.
    fn mix(&self, parts: &[usize]) -> Choice {
        let problem = self.problem;
        let strategy = |(p, pair): (usize, &dip_core::Pair)| {
            let forward = pair.forward.index();
            let (rank, chunk) = (problem.rank[forward] as usize, problem.chunk[forward] as usize);
            self.levels[parts[rank * problem.chunks + chunk]].choice[p]
        };
        problem.pairs.iter().enumerate().map(strategy).collect()
    }
}

impl Chain for RegularChain<'_> {
    fn step(&mut self, slack: f64) {
        let mut next = self.current.clone();
        let mut other = None;
        if self.best.is_some() {
            let turn_changed = next.perturb(&mut self.rng);
            match self.other_level(&next, turn_changed) {
                Ok(level) => other = level,
                Err(Unfit) => return,
            }
        }
        next.keys(self.problem, &mut self.keys);
        let (best_s, cutoff_s) = (self.makespan(), self.current_s * slack);
        let level = &mut other.as_mut().unwrap_or(&mut self.memory).level;
        let settings = RunSettings { rules: next.rules, tail: &level.tail, cutoff_s };
        let run = self.interleaver.run(&level.costs, &mut level.reserve, &self.keys, settings);
        let Some(makespan) = run else { return };
        if makespan < best_s {
            let (order, choice) = (self.interleaver.order(), level.choice.clone());
            self.best = Some(Solution { order, choice, makespan });
        }
        (self.current, self.current_s) = (next, makespan);
        if let Some(other) = other {
            self.memory = other;
        }
    }

    fn best(&self) -> Option<&Solution> {
        self.best.as_ref()
    }

    fn into_best(self: Box<Self>) -> Option<Solution> {
        self.best
    }
}
