//! One job of the improving phase: a step away from a good order, and a tabu walk from there.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::rebuild::Rebuild;
use super::selection::Selection;
use super::tabu::{Tabu, Walk};
use crate::problem::Problem;
use crate::problem::Solution;
use crate::search::SMALL;
use crate::search::strategies::upgrade;

/// Steps of a walk that count as one iteration of a budget.
const STEPS: u32 = 100;
/// How much longer than before a rebuilt order may be, so that a walk from it can pay.
const FAR: f64 = 1.03;
/// Runs of the interleaving that count as one iteration while orders are rebuilt.
const RUNS: u32 = 16;

/// What one thread works with.
pub(in crate::search) struct Walker<'a> {
    problem: &'a Problem,
    tabu: Tabu,
    selection: Option<Selection<'a>>,
    rebuild: Option<Rebuild<'a>>,
}

/// What a job found, and what it counts for.
pub(in crate::search) struct Found {
    pub(in crate::search) best: Solution,
    pub(in crate::search) iterations: u64,
}

impl<'a> Walker<'a> {
    pub(in crate::search) fn new(problem: &'a Problem) -> Self {
        Self { problem, tabu: Tabu::new(), selection: None, rebuild: None }
    }

    /// Walks from `from` itself.
    pub(in crate::search) fn polish(
        &mut self,
        from: &Solution,
        rng: &mut ChaCha8Rng,
        ended: impl FnMut() -> bool,
    ) -> Option<Found> {
        self.stand_on(from)?;
        self.walk(rng, ended, 0)
    }

    /// Steps away from `from`, mostly far, and walks from there.
    pub(in crate::search) fn explore(
        &mut self,
        from: &Solution,
        rng: &mut ChaCha8Rng,
        ended: impl FnMut() -> bool,
    ) -> Option<Found> {
        let problem = self.problem;
        if rng.random_range(0..4) > 0 {
            let rebuild = self.rebuild.get_or_insert_with(|| Rebuild::new(problem));
            let tries = (20_000 / problem.n.max(1)).clamp(16, 200) as u32;
            let rebuilt = rebuild.rebuild(from, tries, rng);
            if let Some(rebuilt) = rebuilt.filter(|r| r.makespan < FAR * from.makespan) {
                self.stand_on(&rebuilt)?;
                return self.walk(rng, ended, tries);
            }
        }
        let times = 1 + rng.random_range(0..4 + problem.n.min(200) as u32 / 8);
        Tabu::kick(self.stand_on(from)?, times, rng);
        self.walk(rng, ended, 0)
    }

    fn walk(
        &mut self,
        rng: &mut ChaCha8Rng,
        mut ended: impl FnMut() -> bool,
        runs: u32,
    ) -> Option<Found> {
        let limited = self.problem.budget.iter().any(Option::is_some);
        // Three walks of four; in larger graphs that was no clear gain.
        if limited && self.problem.n <= SMALL && rng.random_range(0..4) > 0 {
            self.selection.as_mut()?.loosen();
        }
        let walk = Walk { steps: 4000, idle: 200 + 3 * self.problem.n.min(1000) as u32 };
        let (mut best, steps) = self.tabu.walk(self.selection.as_mut()?, walk, rng, &mut ended);
        if !ended() {
            let mut more = best.clone();
            upgrade(self.problem, &mut more);
            if more.makespan < best.makespan {
                best = more;
            }
        }
        Some(Found { best, iterations: u64::from(steps.div_ceil(STEPS) + runs.div_ceil(RUNS)) })
    }

    fn stand_on(&mut self, from: &Solution) -> Option<&mut Selection<'a>> {
        let stands = match &mut self.selection {
            Some(selection) => selection.load(from),
            slot => {
                *slot = Selection::new(self.problem, from);
                slot.is_some()
            }
        };
        self.selection.as_mut().filter(|_| stands)
    }
}
