//! The planner of a training run: metadata of a batch in, its plan out (paper section 4).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dip_core::{
    BatchMeta, MeasuredIteration, PlanError, PlanJudge, PlanSource, PlannedBatch, Seconds,
    TaskGraph,
};

use super::Planning;
use super::planner::{Planned, Planner, PlannerConfig, PlannerStats};
use crate::learning::{LearnedCosts, MeasuredPlan};

/// Learned iterations before plans are judged by the measured deviation of their stages.
const MIN_ITERATIONS_FOR_JUDGE: u64 = 10;

/// Makes a judge for stage times with this relative standard deviation.
pub type MakeJudge = Arc<dyn Fn(f64) -> Arc<dyn PlanJudge> + Send + Sync>;

/// How a planner learns from measured iterations.
#[derive(Clone)]
pub struct Learning {
    /// What is learned. The owner may save it at any time.
    pub costs: Arc<Mutex<LearnedCosts>>,
    /// True if plans use what is learned. If not, only predictions do, and plans depend on their batches alone.
    pub changes_plans: bool,
    /// Judges plans by the measured deviation of their stages, if plans use what is learned.
    pub judge: Option<MakeJudge>,
}

/// The task graph of a batch before corrections, as soon as it is built.
type BaseGraph = Arc<OnceLock<TaskGraph>>;

/// Builds the task graphs of batches and plans them ahead of training, on a thread of its own.
pub struct BatchPlanner {
    planning: Arc<Planning>,
    planner: Planner,
    learning: Option<Learning>,
    submitted: VecDeque<(BatchMeta, BaseGraph)>,
    /// The graphs of the batches that were taken and have not been measured.
    taken: Vec<BaseGraph>,
}

impl BatchPlanner {
    /// Starts the planner and its thread.
    pub fn new(planning: Planning, config: PlannerConfig) -> Self {
        let (submitted, taken) = (VecDeque::new(), Vec::new());
        let (planning, planner) = (Arc::new(planning), config.start());
        Self { planning, planner, learning: None, submitted, taken }
    }

    /// Learns from measured iterations.
    #[must_use]
    pub fn with_learning(mut self, learning: Learning) -> Self {
        self.learning = Some(learning);
        self
    }

    /// Plans, fallbacks and waiting time so far.
    pub fn stats(&self) -> PlannerStats {
        self.planner.stats()
    }

    /// What is learned, if plans use it.
    fn corrections(&mut self) -> Option<LearnedCosts> {
        let learning = self.learning.as_ref().filter(|learning| learning.changes_plans)?;
        let costs = lock(&learning.costs).clone();
        if let Some(judge) = &learning.judge
            && costs.iterations() >= MIN_ITERATIONS_FOR_JUDGE
        {
            self.planner.judge_by(judge(costs.deviation()));
        }
        Some(costs)
    }

    fn expected(&self, base: &BaseGraph, planned: &Planned) -> Seconds {
        match (&self.learning, base.get()) {
            (Some(learning), Some(base)) => lock(&learning.costs).expected(base, &planned.plan),
            _ => planned.plan.predicted.makespan_s,
        }
    }
}

impl PlanSource for BatchPlanner {
    fn submit(&mut self, batch: BatchMeta) -> Result<(), PlanError> {
        let (planning, meta) = (self.planning.clone(), batch.clone());
        let (corrections, base) = (self.corrections(), BaseGraph::default());
        let (built, learns) = (base.clone(), self.learning.is_some());
        self.planner.submit(batch.iteration, move || {
            let mut graph = planning.graph(&meta)?;
            if learns {
                built.get_or_init(|| graph.clone());
            }
            if let Some(costs) = corrections {
                costs.correct(&mut graph);
            }
            Ok(graph)
        })?;
        self.submitted.push_back((batch, base));
        Ok(())
    }

    fn take(&mut self) -> Result<PlannedBatch, PlanError> {
        let planned = self.planner.take()?;
        let (batch, base) = self.submitted.pop_front().ok_or(PlanError::Empty)?;
        let expected = self.expected(&base, &planned);
        self.taken.push(base);
        Ok(PlannedBatch {
            split: self.planning.split(&batch),
            batch,
            plan: planned.plan,
            expected,
            stall: planned.stall,
            search: planned.search,
            fallback: planned.fallback,
        })
    }

    fn measured(&mut self, iteration: &MeasuredIteration<'_>) -> Vec<String> {
        self.planner.measured(iteration.planning_time);
        let taken = std::mem::take(&mut self.taken);
        let Some(learning) = &self.learning else { return Vec::new() };
        let mut costs = lock(&learning.costs);
        let runs = taken.iter().filter_map(|base| base.get()).zip(iteration.runs);
        runs.flat_map(|(base, &(plan, trace))| costs.learn(MeasuredPlan { base, plan, trace }))
            .collect()
    }
}

/// What is learned. A thread that panicked left it whole.
fn lock(costs: &Mutex<LearnedCosts>) -> std::sync::MutexGuard<'_, LearnedCosts> {
    costs.lock().unwrap_or_else(PoisonError::into_inner)
}
