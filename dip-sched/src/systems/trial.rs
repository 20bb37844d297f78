//! Tries the choices of a system on the history and keeps the fastest.

use dip_core::{Budget, Environment, Partition, Seconds};

use super::deployment::{Deployment, SystemError};
use super::{Recompute, SystemInputs};

/// Number of batches of the history that a trial plans.
const TRIAL_BATCHES: usize = 3;
/// Iterations of a search in a trial.
const TRIAL_ITERATIONS: u64 = 100;

/// The fastest choice of a series of trials.
pub(super) struct Fastest<T> {
    best: Option<(T, Seconds)>,
}

impl<T> Fastest<T> {
    pub(super) fn new() -> Self {
        Self { best: None }
    }

    /// Keeps a choice if it is the fastest so far. `seconds` is `None` if the choice does not fit.
    pub(super) fn offer(&mut self, choice: T, seconds: Option<Seconds>) {
        if let Some(seconds) = seconds
            && self.best.as_ref().is_none_or(|b| seconds < b.1)
        {
            self.best = Some((choice, seconds));
        }
    }

    /// The fastest choice so far.
    pub(super) fn choice(&self) -> Option<&T> {
        self.best.as_ref().map(|b| &b.0)
    }

    /// The fastest choice.
    ///
    /// # Errors
    /// [`SystemError::NothingFits`] if no choice fits.
    pub(super) fn found(self, system: &str, inputs: &SystemInputs<'_>) -> Result<T, SystemError> {
        self.best.map(|b| b.0).ok_or_else(|| inputs.nothing_fits(system))
    }
}

/// The mean makespan of a deployment over the history; `None` if a batch does not fit.
pub(super) fn mean_makespan(inputs: &SystemInputs<'_>, deployment: &Deployment) -> Option<Seconds> {
    let budget = Budget::Iterations(TRIAL_ITERATIONS);
    let env = Environment { budget, ..Environment::default() };
    let mut total = Seconds::ZERO;
    let batches = inputs.history.iter().take(TRIAL_BATCHES);
    let count = batches.len().max(1) as f64;
    for batch in batches {
        total += deployment.plan(batch, &env).ok()?.predicted.makespan_s;
    }
    Some(Seconds(total.0 / count))
}

/// The fastest of these deployments over the history.
pub(super) fn fastest_of(
    system: &str,
    inputs: &SystemInputs<'_>,
    deployments: impl IntoIterator<Item = Deployment>,
) -> Result<Deployment, SystemError> {
    let mut fastest = Fastest::new();
    for deployment in deployments {
        let seconds = mean_makespan(inputs, &deployment);
        fastest.offer(deployment, seconds);
    }
    fastest.found(system, inputs)
}

/// The fastest recomputation settings on the fastest of several partitions. Tries one setting for all modules first, then other
/// settings module by module.
pub(super) fn fastest_recompute(
    system: &str,
    inputs: &SystemInputs<'_>,
    partitions: Vec<Partition>,
    deploy: &dyn Fn(Partition, &[Recompute]) -> Deployment,
) -> Result<Deployment, SystemError> {
    let mut fastest = Fastest::new();
    for partition in partitions {
        let with = |settings: &[Recompute]| deploy(partition.clone(), settings);
        if let Some((settings, seconds)) = fastest_settings(inputs, &with).best {
            fastest.offer(with(&settings), Some(seconds));
        }
    }
    fastest.found(system, inputs)
}

fn fastest_settings(
    inputs: &SystemInputs<'_>,
    with: &dyn Fn(&[Recompute]) -> Deployment,
) -> Fastest<Vec<Recompute>> {
    let modules = inputs.model().modules.len();
    let mut fastest = Fastest::new();
    let offer = |fastest: &mut Fastest<_>, settings: Vec<Recompute>| {
        let seconds = mean_makespan(inputs, &with(&settings));
        fastest.offer(settings, seconds);
    };
    for recompute in Recompute::options(inputs.offload) {
        offer(&mut fastest, vec![recompute; modules]);
    }
    for module in 0..modules {
        let Some(start) = fastest.choice().cloned() else { break };
        for recompute in Recompute::options(inputs.offload) {
            if recompute != start[module] {
                let mut settings = start.clone();
                settings[module] = recompute;
                offer(&mut fastest, settings);
            }
        }
    }
    fastest
}
