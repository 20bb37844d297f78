//! Trying choices on the history.

use dip_core::{Environment, Partition, Seconds};

use super::deployment::{Deployment, SystemError};
use super::{Recompute, Setting};

/// Batches of the history on which a choice is tried.
const TRIED: usize = 3;

/// A choice that was tried, and its mean makespan.
pub(super) type Tried<T> = Option<(T, Seconds)>;

/// Mean makespan of a deployment over the history; `None` where a batch does not fit.
pub(super) fn mean_makespan(setting: &Setting<'_>, deployment: &Deployment) -> Option<Seconds> {
    let env = Environment::default();
    let mut total = Seconds::ZERO;
    let batches = setting.history.iter().take(TRIED);
    let count = batches.len().max(1) as f64;
    for batch in batches {
        total += deployment.plan(setting, batch, &env).ok()?.predicted.makespan_s;
    }
    Some(Seconds(total.0 / count))
}

/// Keeps the faster one.
pub(super) fn keep<T>(best: &mut Tried<T>, choice: T, seconds: Option<Seconds>) {
    if let Some(seconds) = seconds
        && best.as_ref().is_none_or(|b| seconds < b.1)
    {
        *best = Some((choice, seconds));
    }
}

/// The best, or the error of a system that found none.
pub(super) fn found<T>(
    best: Tried<T>,
    system: &str,
    setting: &Setting<'_>,
) -> Result<T, SystemError> {
    best.map(|b| b.0).ok_or_else(|| SystemError::NothingFits {
        system: system.into(),
        memory: setting.cluster.device.memory_bytes,
    })
}

/// The best of these deployments over the history.
pub(super) fn best_of(
    system: &str,
    setting: &Setting<'_>,
    deployments: impl IntoIterator<Item = Deployment>,
) -> Result<Deployment, SystemError> {
    let mut best = None;
    for deployment in deployments {
        let seconds = mean_makespan(setting, &deployment);
        keep(&mut best, deployment, seconds);
    }
    found(best, system, setting)
}

/// The best recompute settings on the best of several partitions: one setting for all modules, then module by module.
pub(super) fn best_recompute(
    system: &str,
    setting: &Setting<'_>,
    partitions: Vec<Partition>,
    deploy: &dyn Fn(Partition, &[Recompute]) -> Deployment,
) -> Result<Deployment, SystemError> {
    let mut best = None;
    for partition in partitions {
        let with = |settings: &[Recompute]| deploy(partition.clone(), settings);
        if let Some((settings, seconds)) = best_settings(setting, &with) {
            keep(&mut best, with(&settings), Some(seconds));
        }
    }
    found(best, system, setting)
}

fn best_settings(
    setting: &Setting<'_>,
    with: &dyn Fn(&[Recompute]) -> Deployment,
) -> Tried<Vec<Recompute>> {
    let modules = setting.model.modules.len();
    let mut best: Tried<Vec<Recompute>> = None;
    for recompute in Recompute::ALL {
        let settings = vec![recompute; modules];
        let seconds = mean_makespan(setting, &with(&settings));
        keep(&mut best, settings, seconds);
    }
    for module in 0..modules {
        let (start, _) = best.clone()?;
        for recompute in Recompute::ALL.into_iter().filter(|&r| r != start[module]) {
            let mut settings = start.clone();
            settings[module] = recompute;
            let seconds = mean_makespan(setting, &with(&settings));
            keep(&mut best, settings, seconds);
        }
    }
    best
}
