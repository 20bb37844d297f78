//! One job of an island: a step away from a good order, then a tabu walk.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::disjunctive_graph::DisjunctiveGraph;
use super::rebuild::Rebuild;
use super::tabu::{Tabu, Walk};
use crate::problem::{Problem, Solution};
use crate::search::MAX_SMALL_TASKS;
use crate::search::strategies::upgrade;

/// Steps of a walk that count as one iteration of a budget.
const STEPS_PER_ITERATION: u32 = 100;
/// A walk starts from a rebuilt order only if its makespan is less than this many times the original.
const PROMISING: f64 = 1.03;
/// Runs of the interleaving that count as one iteration of a budget.
const RUNS_PER_ITERATION: u32 = 16;

/// The working state of one thread.
pub(in crate::search) struct Walker<'a> {
    problem: &'a Problem,
    tabu: Tabu,
    graph: Option<DisjunctiveGraph<'a>>,
    rebuild: Option<Rebuild<'a>>,
}

/// The best order of a walk, and the iterations it counts for.
pub(in crate::search) struct WalkResult {
    pub(in crate::search) best: Solution,
    pub(in crate::search) iterations: u64,
}

impl<'a> Walker<'a> {
    pub(in crate::search) fn new(problem: &'a Problem) -> Self {
        Self { problem, tabu: Tabu::new(), graph: None, rebuild: None }
    }

    /// Walks from `from` itself.
    pub(in crate::search) fn polish(
        &mut self,
        from: &Solution,
        rng: &mut ChaCha8Rng,
        ended: impl FnMut() -> bool,
    ) -> Option<WalkResult> {
        self.load(from)?;
        self.walk(rng, ended, 0)
    }

    /// Steps away from `from`, usually far, and walks from there.
    pub(in crate::search) fn explore(
        &mut self,
        from: &Solution,
        rng: &mut ChaCha8Rng,
        ended: impl FnMut() -> bool,
    ) -> Option<WalkResult> {
        let problem = self.problem;
        if rng.random_range(0..4) > 0 {
            let rebuild = self.rebuild.get_or_insert_with(|| Rebuild::new(problem));
            let tries = (20_000 / problem.n.max(1)).clamp(16, 200) as u32;
            let rebuilt = rebuild.rebuild(from, tries, rng);
            if let Some(rebuilt) = rebuilt.filter(|r| r.makespan < PROMISING * from.makespan) {
                self.load(&rebuilt)?;
                return self.walk(rng, ended, tries);
            }
        }
        let kicks = 1 + rng.random_range(0..4 + problem.n.min(200) as u32 / 8);
        Tabu::kick(self.load(from)?, kicks, rng);
        self.walk(rng, ended, 0)
    }

    /// Walks from the loaded order, which took `runs` of the interleaving to build.
    fn walk(
        &mut self,
        rng: &mut ChaCha8Rng,
        mut ended: impl FnMut() -> bool,
        runs: u32,
    ) -> Option<WalkResult> {
        let limited = self.problem.is_limited();
        // Three walks of four may exceed memory.
        if limited && self.problem.n <= MAX_SMALL_TASKS && rng.random_range(0..4) > 0 {
            self.graph.as_mut()?.loosen();
        }
        let walk = Walk { steps: 4000, idle: 200 + 3 * self.problem.n.min(1000) as u32 };
        let (mut best, steps) = self.tabu.walk(self.graph.as_mut()?, walk, rng, &mut ended);
        if !ended() {
            let mut upgraded = best.clone();
            upgrade(self.problem, &mut upgraded, &mut ended);
            if upgraded.makespan < best.makespan {
                best = upgraded;
            }
        }
        Some(WalkResult {
            best,
            iterations: u64::from(
                steps.div_ceil(STEPS_PER_ITERATION) + runs.div_ceil(RUNS_PER_ITERATION),
            ),
        })
    }

    /// Loads an order into the graph. `None` if the order deadlocks.
    fn load(&mut self, from: &Solution) -> Option<&mut DisjunctiveGraph<'a>> {
        let loaded = match &mut self.graph {
            Some(graph) => graph.load(from),
            slot => {
                *slot = DisjunctiveGraph::new(self.problem, from);
                slot.is_some()
            }
        };
        self.graph.as_mut().filter(|_| loaded)
    }
}
