//! Chooses the routes of the modules through the ranks.

use dip_core::{
    BatchMeta, Budget, Environment, ModuleId, Partition, Plan, PlanError, Route, Schedule, Seconds,
};

use crate::partition::{PartitionError, Partitioner};
use crate::planning::Planning;

/// Share of a time budget for the trial of one partition.
const TRIAL_SHARE: f64 = 0.05;
/// Iterations of a search in a trial.
const TRIAL_ITERATIONS: u64 = 20;
/// With more modules, only one at a time differs from the others.
const MAX_MIXED_MODULES: usize = 2;

/// The modality-aware partitions with every module on a loop, on a wave, and with mixes of both, the loops first. Modules of one
/// segment have one route.
///
/// # Errors
/// Same as [`Partitioner::partition`].
pub fn routed_partitions(partitioner: &Partitioner<'_>) -> Result<Vec<Partition>, PartitionError> {
    let looped = partitioner.partition()?;
    let modules: Vec<ModuleId> = (0..looped.modules.len())
        .map(ModuleId::from)
        .filter(|&module| looped.segments(module) > 1)
        .collect();
    let mut partitions = vec![looped];
    for routes in mixes(modules.len()) {
        let routed = modules
            .iter()
            .zip(routes)
            .fold(partitioner.clone(), |all, (&module, route)| all.with_route(module, route));
        let partition = routed.partition()?;
        if !partitions.contains(&partition) {
            partitions.push(partition);
        }
    }
    Ok(partitions)
}

/// The routes of `modules` modules with at least one wave, all waves first.
fn mixes(modules: usize) -> Vec<Vec<Route>> {
    let with = |waves: &dyn Fn(usize) -> bool| -> Vec<Route> {
        (0..modules).map(|m| if waves(m) { Route::Wave } else { Route::Loop }).collect()
    };
    let mut mixes = vec![with(&|_| true)];
    mixes.extend((0..modules).map(|wave| with(&|m| m == wave)));
    if modules > MAX_MIXED_MODULES {
        mixes.extend((0..modules).map(|looped| with(&|m| m != looped)));
    }
    mixes
}

/// The planning whose plan of `batch` is the fastest after a short search; the first of equals.
///
/// A time budget is for all searches: each trial takes a small share of it.
///
/// # Errors
/// The error of the first planning if none has a plan.
///
/// # Panics
/// If there is no planning.
pub fn fastest_planning(
    plannings: Vec<Planning>,
    batch: &BatchMeta,
    schedule: &dyn Schedule,
    env: &Environment<'_>,
) -> Result<Planning, PlanError> {
    let budget = match env.budget {
        Budget::Time(time) => Budget::Time(Seconds(time.0 * TRIAL_SHARE)),
        Budget::Iterations(n) => Budget::Iterations(n.min(TRIAL_ITERATIONS)),
    };
    let env = Environment { budget, ..*env };
    let mut plannings = plannings.into_iter();
    let mut best = plannings.next().expect("there is a planning");
    if plannings.len() == 0 {
        return Ok(best);
    }
    let trial = |planning: &Planning| planning.plan_in(batch, schedule, &env);
    let mut shortest = trial(&best);
    for planning in plannings {
        let found = trial(&planning);
        if makespan(&found) < makespan(&shortest) {
            (best, shortest) = (planning, found);
        }
    }
    shortest.map(|_| best)
}

/// Infinite without a plan.
fn makespan(plan: &Result<Plan, PlanError>) -> f64 {
    plan.as_ref().map_or(f64::INFINITY, |plan| plan.predicted.makespan_s.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_have_a_wave_and_are_few() {
        assert_eq!(mixes(0), [vec![]]);
        assert_eq!(mixes(1), [vec![Route::Wave], vec![Route::Wave]]);
        for modules in 1..6 {
            let all = mixes(modules);
            assert!(all.iter().all(|routes| routes.contains(&Route::Wave)));
            assert!(all.len() <= 2 * modules + 1);
        }
    }
}
