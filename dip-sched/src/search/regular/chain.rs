//! Local search over regular orders: phases, turns and rules, with a level of memory for each chunk of each rank.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::phases::Phases;
use crate::ordering::Interleaver;
use crate::ordering::Turns;
use crate::problem::Solution;
use crate::problem::{Choice, Problem};
use crate::search::Search;
use crate::search::level::Level;

/// Runs without a shorter order after which a chain stops.
const IDLE: u64 = 1500;

/// A regular order under improvement.
pub(in crate::search) struct Chain<'a> {
    problem: &'a Problem,
    levels: &'a [Level],
    turns: &'a Turns,
    rng: ChaCha8Rng,
    interleaver: Interleaver<'a>,
    keys: Vec<f64>,
    current: Phases,
    /// The level of each chunk of each rank, and their strategies.
    units: Vec<usize>,
    kept: Level,
    best: Option<Solution>,
    /// The makespan of the current order.
    current_s: f64,
}

/// Where a chain starts.
#[derive(Clone, Copy)]
pub(in crate::search) enum Origin<'a> {
    /// Microbatches in their order.
    Regular,
    /// The lightest microbatch passes the pipeline before all others.
    LightestAhead,
    /// Microbatches in any order.
    Anywhere,
    /// The regular part of the plan of the batch before.
    Previous(&'a Phases),
}

impl<'a> Chain<'a> {
    /// A chain at one level of memory.
    pub(in crate::search) fn new(
        search: &'a Search<'_>,
        level: usize,
        job: u64,
        origin: Origin<'_>,
    ) -> Self {
        let (problem, levels) = (search.problem, &search.levels[..]);
        let mut rng = search.rng(if matches!(origin, Origin::Anywhere) { 4 } else { 2 }, job);
        let mut kept = levels[level].clone();
        let head = problem.heads(&kept.costs.dur);
        // Steps of the golden section spread over the whole range, however few chains there are.
        let stretch = 1.0 + 9.0 * (0.618 * job as f64 + rng.random_range(0.0..0.2)).fract();
        let mut current = Phases::new(problem, &head, stretch);
        match origin {
            Origin::Regular => {}
            Origin::LightestAhead => current.send_lightest_ahead(problem, &kept.costs.dur),
            Origin::Anywhere => current.shuffle(&mut rng),
            Origin::Previous(phases) => current = phases.clone(),
        }
        if !matches!(origin, Origin::Regular) {
            kept = kept.turned(problem, (&search.turns, current.turns())).unwrap_or(kept);
        }
        Self {
            problem,
            levels,
            turns: &search.turns,
            rng,
            interleaver: Interleaver::new(problem),
            keys: vec![0.0; problem.n],
            current,
            units: vec![level; problem.ranks * problem.chunks],
            kept,
            best: None,
            current_s: f64::INFINITY,
        }
    }

    /// The makespan of the best order so far.
    pub(in crate::search) fn makespan(&self) -> f64 {
        self.best.as_ref().map_or(f64::INFINITY, |b| b.makespan)
    }

    /// The best order.
    pub(in crate::search) fn best(self) -> Option<Solution> {
        self.best
    }

    /// Makes so many runs, each a change that stays where the order gets longer by no more than a part of `slack`; fewer, where
    /// none is the best for long.
    pub(in crate::search) fn run(
        &mut self,
        runs: u64,
        slack: f64,
        mut ended: impl FnMut() -> bool,
    ) {
        let (mut idle, mut best_s) = (0, self.makespan());
        for _ in 0..runs {
            if idle > IDLE || ended() {
                break;
            }
            self.step(1.0 + slack);
            idle = if self.makespan() < best_s { 0 } else { idle + 1 };
            best_s = self.makespan();
        }
    }

    fn step(&mut self, slack: f64) {
        let mut next = self.current.clone();
        let mut other = None;
        if self.best.is_some() {
            let turned = next.perturb(&mut self.rng);
            match self.other_level(&next, turned) {
                Ok(level) => other = level,
                Err(Unfit) => return,
            }
        }
        next.keys(self.problem, &mut self.keys);
        let (best_s, cutoff) = (self.makespan(), self.current_s * slack);
        let level = other.as_mut().map_or(&mut self.kept, |(_, level)| level);
        let settings = (&next.rules, &level.tail[..], cutoff);
        let run = self.interleaver.run(&level.costs, &mut level.reserve, &self.keys, settings);
        let Some(makespan) = run else { return };
        if makespan < best_s {
            let (order, choice) = (self.interleaver.order(), level.choice.clone());
            self.best = Some(Solution { order, choice, makespan });
        }
        (self.current, self.current_s) = (next, makespan);
        if let Some((units, level)) = other {
            (self.units, self.kept) = (units, level);
        }
    }

    /// Another level where one is drawn, or where turns have changed: memory lets pass what the order of its witness leaves
    /// room for, so the witness follows the turns.
    fn other_level(
        &mut self,
        next: &Phases,
        turned: bool,
    ) -> Result<Option<(Vec<usize>, Level)>, Unfit> {
        let problem = self.problem;
        let drawn = self.levels.len() > 1 && self.rng.random_bool(0.3);
        let limited = problem.budget.iter().any(Option::is_some);
        let turns = (self.turns, next.turns());
        let (units, level) = if drawn {
            // Ranks differ in how much they hold: each may have a level of its own.
            let units = self.other_units();
            let level = Level::new(problem, self.mix(&units), turns);
            (units, level)
        } else if turned && limited {
            (self.units.clone(), self.kept.turned(problem, turns))
        } else {
            return Ok(None);
        };
        Ok(Some((units, level.ok_or(Unfit)?)))
    }

    /// Another level for a rank, for a chunk, or for a chunk of a rank.
    fn other_units(&mut self) -> Vec<usize> {
        let (ranks, chunks) = (self.problem.ranks, self.problem.chunks);
        let rng = &mut self.rng;
        let (rank, chunk) = (rng.random_range(0..ranks), rng.random_range(0..chunks));
        let level = rng.random_range(0..self.levels.len());
        let part = rng.random_range(0..4);
        let mut units = self.units.clone();
        for (i, unit) in units.iter_mut().enumerate() {
            let (own_rank, own_chunk) = (i / chunks == rank, i % chunks == chunk);
            let chosen = match part {
                0 => own_rank && own_chunk,
                1 => own_chunk,
                _ => own_rank,
            };
            if chosen {
                *unit = level;
            }
        }
        units
    }

    /// The strategies of a level for each chunk of each rank.
    fn mix(&self, units: &[usize]) -> Choice {
        let problem = self.problem;
        let strategy = |(p, pair): (usize, &dip_core::Pair)| {
            let forward = pair.forward.index();
            let (rank, chunk) = (problem.rank[forward] as usize, problem.chunk[forward] as usize);
            self.levels[units[rank * problem.chunks + chunk]].choice[p]
        };
        problem.pairs.iter().enumerate().map(strategy).collect()
    }
}

/// No order of the microbatches one after the other fits in memory.
struct Unfit;
