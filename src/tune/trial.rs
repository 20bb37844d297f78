//! Emulates one layout.

use std::sync::atomic::AtomicBool;

use dip_core::{
    Budget, BuildError, Environment, LayerStrategy, Plan, PlanError, Schedule, ScheduleError,
    TaskKind,
};
use dip_emu::step_figures;
use dip_sched::{Dip, Planning};

use super::degrees::Sized;
use super::layout::Layout;
use super::limits::Losses;
use super::{Setup, TuneError, TuneSettings};

/// Emulates layouts of a model at given degrees.
pub(super) struct Trial<'a> {
    sized: &'a Sized,
    settings: &'a TuneSettings,
    cancel: &'a AtomicBool,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        sized: &'a Sized,
        settings: &'a TuneSettings,
        cancel: &'a AtomicBool,
    ) -> Self {
        Self { sized, settings, cancel }
    }

    /// The setup of a layout; `None` if it does not fit.
    pub(super) fn emulate(
        &self,
        layout: &Layout,
        budget: Budget,
    ) -> Result<Option<Setup>, TuneError> {
        let Sized { planning, cost, batch, .. } = self.sized;
        let planning = planning.clone().with_partition(layout.partition.clone());
        let planning = planning.with_weight_split(Dip.splits_weights());
        let plan = match self.plan(&planning, budget) {
            Ok(plan) => plan,
            Err(PlanError::Schedule(ScheduleError::Infeasible { .. })) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let step = step_figures(cost, planning.partition(), batch, &plan);
        let pipeline_s = plan.predicted.makespan_s;
        let seconds = step.seconds(pipeline_s);
        Ok(Some(Setup {
            parallel: self.sized.parallel(),
            microbatches: batch.microbatches.len(),
            layout: layout.clone(),
            seconds,
            pipeline_s,
            gap: plan.gap(),
            step,
            tokens_per_s: step.tokens_per_s(seconds),
            mfu: step.utilisation(seconds),
            peak_bytes: plan.predicted.peak_bytes.iter().copied().max().unwrap_or_default(),
            memory: memory(&plan, &planning),
            losses: Losses::of(self.sized, self.settings, &planning, &plan, &step)?,
        }))
    }

    fn plan(&self, planning: &Planning, budget: Budget) -> Result<Plan, PlanError> {
        let env = Environment {
            seed: self.settings.seed,
            budget,
            threads: self.settings.threads,
            cancel: Some(self.cancel),
            ..Environment::default()
        };
        planning.plan_in(&self.sized.batch, &Dip, &env)
    }
}

/// The shares of layers under each memory strategy, over all stages, such as `keep 80 %, full 20 %`.
fn memory(plan: &Plan, planning: &Planning) -> String {
    let mut counts = [0u64; LayerStrategy::ALL.len()];
    let model = planning.model();
    for task in plan.graph.tasks.iter().filter(|t| t.kind == TaskKind::Forward) {
        let Some((module, _)) = model.module(&task.module) else { continue };
        let chunks = &planning.partition().module(module).chunks;
        let chunk = chunks.iter().find(|c| c.rank == task.rank && c.segment == task.segment);
        let layers = chunk.map_or(0, |chunk| chunk.layers.len());
        for strategy in task.strategy.layers(layers).unwrap_or_default() {
            counts[strategy as usize] += 1;
        }
    }
    let total: u64 = counts.iter().sum();
    let share = |(&count, strategy): (&u64, LayerStrategy)| {
        let percent = 100.0 * count as f64 / total.max(1) as f64;
        (count > 0).then(|| format!("{} {percent:.0} %", strategy.name()))
    };
    let shares: Vec<_> = counts.iter().zip(LayerStrategy::ALL).filter_map(share).collect();
    shares.join(", ")
}

impl From<BuildError> for TuneError {
    fn from(error: BuildError) -> Self {
        Self::Plan(error.into())
    }
}
