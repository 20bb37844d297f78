//! Local search over patterns.

use rand_chacha::ChaCha8Rng;

use super::fill::Filler;
use super::pattern::Pattern;
use super::template::Template;
use super::unroll::unroll;
use crate::ordering::RunSettings;
use crate::problem::{Problem, Solution, evaluate};
use crate::search::chain::Chain;
use crate::search::level::Level;
use crate::search::{RngStream, Search};

/// Gaps are filled only in orders at most this many times longer than the best such order of the chain.
const PROMISING: f64 = 1.05;

/// A chain of patterns, each a small change of the one before.
pub(in crate::search) struct PeriodicChain<'a> {
    problem: &'a Problem,
    level: &'a Level,
    template: &'a Template,
    rng: ChaCha8Rng,
    filler: Filler<'a>,
    keys: Vec<f64>,
    current: Pattern,
    current_s: f64,
    /// The shortest makespan before gaps are filled.
    unfilled_s: f64,
    started: bool,
    best: Option<Solution>,
}

impl<'a> PeriodicChain<'a> {
    /// A chain at one level of memory.
    pub(in crate::search) fn new(
        search: &'a Search<'_>,
        template: &'a Template,
        level: usize,
        job: u64,
    ) -> Self {
        let problem = search.problem;
        let mut rng = search.rng(RngStream::PeriodicChain, job);
        let current = Pattern::start(template, problem.microbatches(), job, &mut rng);
        Self {
            problem,
            level: &search.levels[level],
            template,
            rng,
            filler: Filler::new(problem),
            keys: vec![0.0; problem.n],
            current,
            current_s: f64::INFINITY,
            unfilled_s: f64::INFINITY,
            started: false,
            best: None,
        }
    }

    /// The makespan of a pattern, filled or not. Keeps its order if that is the best so far.
    fn rate(&mut self, pattern: &Pattern, slack: f64) -> Option<f64> {
        let (problem, costs) = (self.problem, &self.level.costs);
        pattern.keys(self.template, &problem.microbatch, &mut self.keys);
        let order = unroll(problem, costs, &self.keys)?;
        let unfilled_s = evaluate::makespan(problem, &costs.dur, &order)?;
        if unfilled_s > PROMISING * self.unfilled_s {
            return Some(unfilled_s);
        }
        self.unfilled_s = self.unfilled_s.min(unfilled_s);
        let cutoff_s = unfilled_s.min(self.current_s * slack);
        let settings = RunSettings { rules: pattern.rules, tail: &self.level.tail, cutoff_s };
        let filled_s = self.filler.fill(costs, &order, settings);
        let makespan = filled_s.unwrap_or(unfilled_s);
        if makespan < self.makespan() {
            let order = if filled_s.is_some() { self.filler.order() } else { order };
            let choice = self.level.choice.clone();
            self.best = Some(Solution { order, choice, makespan });
        }
        Some(makespan)
    }
}

impl Chain for PeriodicChain<'_> {
    fn step(&mut self, slack: f64) {
        let mut next = self.current.clone();
        if self.started {
            next.perturb(&mut self.rng);
        }
        self.started = true;
        let Some(makespan) = self.rate(&next, slack) else {
            // Until a first pattern fits, any other may be closer to one.
            if self.current_s.is_infinite() {
                self.current = next;
            }
            return;
        };
        if makespan < self.current_s * slack {
            (self.current, self.current_s) = (next, makespan);
        }
    }

    fn best(&self) -> Option<&Solution> {
        self.best.as_ref()
    }

    fn into_best(self: Box<Self>) -> Option<Solution> {
        self.best
    }
}
