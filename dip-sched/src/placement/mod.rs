//! The search for a placement: which layers go on which rank, for all batches of a run.
//!
//! ```text
//! placements by rule, with and without split weight gradients -> plans of sample batches -> the fastest
//! the fastest -> its neighbours with the least busy ranks -> plans of sample batches -> the fastest, again and again
//! ```
//!
//! The paper's rule gives the chunks of a module equally many layers (section 1), and the partitioner evens out ranks layer by layer.
//! If ranks have few layers, a rank with one layer more than the others keeps them idle in every order of stages. And a placement
//! that balances layers may not balance weights. So this search moves layers, chunks and modules to other ranks while the plans of sample batches,
//! together with the optimiser step, get shorter.

mod chunk_loads;
mod error;
mod layer_ranks;
mod neighbourhood;
mod refine;
mod routes;

pub use error::PlacementError;
pub use routes::{fastest_planning, routed_partitions};

use dip_core::{
    BatchMeta, Budget, Bytes, Environment, MicrobatchMeta, ModuleId, Placement, PlanError, Route,
    Schedule, Seconds,
};

use crate::planning::Planning;

/// Plans with split weight gradients must be predicted shorter by this share. On every model their predictions were 2 to 3 % more
/// optimistic than those of other plans.
const SPLIT_MARGIN: f64 = 0.03;
/// Maximum number of search iterations for the plan of a trial.
const MAX_TRIAL_ITERATIONS: u64 = 50;

/// Chooses the placement of a run by plans of sample batches.
pub struct PlacementSearch<'a> {
    /// The run with and without split weight gradients, or with one of the two; each has its own cost model. The search replaces the
    /// partitions. The device memory of the cluster is the limit of every rank, `u64::MAX` for no limit.
    pub plannings: Vec<Planning>,
    /// Sample batches, at least one.
    pub batches: &'a [BatchMeta],
    /// The mean microbatch of the run; the partitioner balances loads for it.
    pub mean: &'a MicrobatchMeta,
    /// The longest video of a microbatch.
    pub longest_video: Seconds,
    /// The schedule of the run.
    pub schedule: &'a dyn Schedule,
    /// The budget of the schedule for a batch.
    pub budget: Budget,
}

/// A placement rule, and its number of segments as a multiple of the paper's rule.
#[derive(Debug, Clone, Copy)]
struct Rule {
    placement: Placement,
    segment_factor: u32,
    /// The route of every module of a modality-aware placement.
    route: Route,
}

/// A placement with the predicted time of an iteration.
struct PredictedPlacement {
    seconds: f64,
    /// Stages of all sample batches.
    stages: u64,
    planning: Planning,
}

impl PlacementSearch<'_> {
    /// Returns the placement by rule with the shortest predicted iteration.
    ///
    /// Split weight gradients take longer, but fill bubbles. Slices balance ranks, but small slices are slow. Which effect is larger
    /// depends on the model and the device.
    ///
    /// # Errors
    /// [`PlacementError`] if no placement by rule fits: the error of the placement that needs the least memory, or of the first one.
    pub fn by_rule(&self) -> Result<Planning, PlacementError> {
        let mut candidates = self.candidates();
        if candidates.len() > 1 {
            return Ok(self.fastest(candidates)?.planning);
        }
        let only = candidates.remove(0)?;
        self.check_memory(&only)?;
        Ok(only)
    }

    /// Starts from the placement by rule and moves to faster neighbours. A schedule that does not search keeps its rule.
    ///
    /// # Errors
    /// Same as [`PlacementSearch::by_rule`].
    pub fn run(&self) -> Result<Planning, PlacementError> {
        if !self.schedule.searches() {
            return self.by_rule();
        }
        Ok(self.refine(self.fastest(self.candidates())?))
    }

    /// All placements by rule, at least one.
    fn candidates(&self) -> Vec<Result<Planning, PlacementError>> {
        let place = |rule| self.plannings.iter().map(move |planning| self.place(planning, rule));
        self.rules().into_iter().flat_map(place).collect()
    }

    /// The rules worth a trial, the schedule's own first. A search can plan any of them: contiguous runs send less and slice nothing,
    /// which on some devices matters more than smaller bubbles.
    fn rules(&self) -> Vec<Rule> {
        let placement = self.schedule.placement();
        let by_paper = Rule { placement, segment_factor: 1, route: Route::Loop };
        let mut rules = vec![by_paper];
        if self.schedule.searches() {
            let segment_factor = self.schedule.segment_factor();
            rules.extend(Route::ALL.map(|route| Rule { segment_factor, route, ..by_paper }));
            rules.extend([1, 2].map(|runs_per_rank| Rule {
                placement: Placement::Contiguous { runs_per_rank, route: Route::Loop },
                ..by_paper
            }));
        }
        rules
    }

    fn place(&self, planning: &Planning, rule: Rule) -> Result<Planning, PlacementError> {
        let partitioner = planning
            .partitioner()
            .with_representative(self.mean.clone())
            .with_segment_factor(rule.segment_factor);
        let modules = (0..planning.model().modules.len()).map(ModuleId::from);
        let partition = modules
            .fold(partitioner, |all, module| all.with_route(module, rule.route))
            .place(rule.placement)?;
        Ok(planning.clone().with_partition(partition))
    }

    fn fastest(
        &self,
        candidates: Vec<Result<Planning, PlacementError>>,
    ) -> Result<PredictedPlacement, PlacementError> {
        let (mut best, mut refused) = (None::<PredictedPlacement>, None::<PlacementError>);
        for candidate in candidates {
            match candidate.and_then(|planning| self.predict(planning)) {
                Ok(predicted) => {
                    if best.as_ref().is_none_or(|best| predicted.seconds < best.seconds) {
                        best = Some(predicted);
                    }
                }
                Err(error) => {
                    let needs_less =
                        |other: &PlacementError| error.memory_needed() < other.memory_needed();
                    if refused.as_ref().is_none_or(needs_less) {
                        refused = Some(error);
                    }
                }
            }
        }
        best.ok_or_else(|| refused.expect("each candidate is predicted or refused"))
    }

    /// Plans the sample batches.
    fn predict(&self, planning: Planning) -> Result<PredictedPlacement, PlacementError> {
        self.check_memory(&planning)?;
        let budget = Budget::Iterations(self.trial_iterations());
        let env = Environment { budget, ..Environment::default() };
        let (mut makespans, mut stages) = (0.0, 0);
        for batch in self.batches {
            let plan = planning.plan_in(batch, self.schedule, &env)?;
            makespans += plan.predicted.makespan_s.0;
            stages += plan.graph.tasks.len() as u64;
        }
        let mean = makespans / self.batches.len() as f64;
        let seconds = iteration_seconds(mean, planning.busiest_update().0, planning.weight_split());
        Ok(PredictedPlacement { seconds, stages, planning })
    }

    fn trial_iterations(&self) -> u64 {
        match self.budget {
            Budget::Iterations(n) => n.min(MAX_TRIAL_ITERATIONS),
            Budget::Time(_) => MAX_TRIAL_ITERATIONS,
        }
    }

    /// Checks that the heaviest microbatch fits. Otherwise the run would end at the first batch that has one.
    fn check_memory(&self, planning: &Planning) -> Result<(), PlacementError> {
        let limit = planning.cluster().device.memory_bytes;
        if limit == Bytes(u64::MAX) {
            return Ok(());
        }
        let need = planning.memory_need(self.longest_video).map_err(PlanError::from)?;
        match need.iter().enumerate().max_by_key(|(_, bytes)| bytes.0) {
            Some((rank, bytes)) if *bytes > limit => {
                Err(PlacementError::Memory { limit: limit.0, rank, need: bytes.0 })
            }
            _ => Ok(()),
        }
    }
}

/// The seconds of an iteration: the makespan, then the optimiser step of the rank with most to update. That step starts when the
/// gradients of all ranks are complete.
fn iteration_seconds(makespan: f64, update: f64, weight_split: bool) -> f64 {
    makespan * (1.0 + if weight_split { SPLIT_MARGIN } else { 0.0 }) + update
}
