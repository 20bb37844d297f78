//! The size of a run: the fastest degrees of parallelism, segments, sub-microbatches and memory strategies for a model on a number of
//! devices, by emulation.
//!
//! ```text
//! model + cluster + devices -> degrees (those that can fit) -> bound of each -> emulate in the order of bounds -> refine -> ten best
//! ```
//!
//! All setups train the same batch of microbatches, dealt to their replicas. A step lasts as long as that of the heaviest replica: its
//! searched plan, then the exchange between replicas and the optimiser ([`step_figures`](crate::emulate::step_figures)).
//!
//! Degrees are left out only if they cannot fit, or if a proven bound on their step is no better than the worst of the setups that are
//! kept. The bound holds for all segments, routes, memory strategies and the sub-microbatch sizes that are tried: the fastest
//! computation of all stages, shared equally by the ranks, and the mean over the ranks of optimiser and gather.

mod degrees;
mod layout;
mod limits;
mod refine;
mod trial;

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use thiserror::Error;

use dip_core::{
    BatchMeta, Budget, Bytes, ClusterSpec, ModelSpec, Parallelism, PlanError, Seconds, StepFigures,
};
use dip_emu::{Replicas, sample};
use dip_sched::PartitionError;

pub use layout::{Layout, RouteMix};
pub use limits::{Limit, Losses};

use degrees::{Degrees, Sized};
use trial::Trial;

/// What to tune for.
#[derive(Debug, Clone)]
pub struct TuneSettings {
    /// Devices of the run.
    pub devices: u32,
    /// Microbatches of a step over all replicas.
    pub microbatches: u32,
    /// Share of the memory of a device that plans leave free, for the driver, communication buffers and fragments.
    pub reserve: f64,
    /// How replicas share the optimiser and sum gradients.
    pub replicas: Replicas,
    /// True if stages may move activations to host memory.
    pub offload: bool,
    /// Budget of one search. The layout that is kept for some degrees is searched once more with [`LAST_SEARCH`] times as much.
    pub budget: Budget,
    /// Threads of a search.
    pub threads: usize,
    /// Seed of the batch and of the searches.
    pub seed: u64,
    /// Number of setups to keep.
    pub keep: usize,
}

/// The budget of the last search of a layout, as a multiple of [`TuneSettings::budget`].
pub const LAST_SEARCH: u32 = 4;

/// Setups by the time of their step, the fastest first.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TuneReport {
    /// Name of the model.
    pub model: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Devices of the run.
    pub devices: u32,
    /// Microbatches of a step over all replicas.
    pub microbatches: u32,
    /// Memory that every device keeps free.
    pub reserve: Bytes,
    /// The fastest setups.
    pub setups: Vec<Setup>,
    /// Degrees that were emulated.
    pub emulated: usize,
    /// Degrees that no layout can fit in memory, or for which none was found that does.
    pub do_not_fit: Vec<Parallelism>,
    /// Degrees whose bound is no better than the last setup.
    pub bounded: Vec<Parallelism>,
    /// False if the caller stopped the work.
    pub complete: bool,
}

/// One setup and its figures.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Setup {
    /// Degrees of parallelism.
    pub parallel: Parallelism,
    /// Microbatches of the heaviest replica.
    pub microbatches: usize,
    /// Segments, routes and sub-microbatches.
    pub layout: Layout,
    /// The time of the step.
    pub seconds: Seconds,
    /// The time of its plan.
    pub pipeline_s: Seconds,
    /// Distance of the plan from the proven bound of its graph: 0.01 is one per cent.
    pub gap: f64,
    /// The step around the plan.
    pub step: StepFigures,
    /// Tokens per second and device.
    pub tokens_per_s: f64,
    /// Model FLOPs utilisation.
    pub mfu: f64,
    /// Peak memory of the fullest rank.
    pub peak_bytes: Bytes,
    /// Memory strategies of the layers, such as `keep 80 %, full 20 %`.
    pub memory: String,
    /// Where the time of the devices goes.
    pub losses: Losses,
}

/// Hears about the work of [`tune`].
pub trait TuneProgress {
    /// Called before the first emulation with the number of degrees that may be emulated.
    fn degrees(&mut self, count: usize) {
        let _ = count;
    }

    /// Called after degrees were emulated; `setup` is `None` if they do not fit.
    fn emulated(&mut self, parallel: Parallelism, setup: Option<&Setup>);

    /// Called before the layouts of the fastest `count` degrees are refined.
    fn refining(&mut self, count: usize) {
        let _ = count;
    }

    /// Called after the layout of some degrees was refined.
    fn refined(&mut self, setup: &Setup);
}

/// A model that cannot be tuned.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TuneError {
    /// There are more devices than the cluster has, or none.
    #[error(
        "--devices is {devices}, but must be 1 to the {available} of cluster {cluster:?}; lower it, or raise `nodes` in a cluster TOML"
    )]
    Devices {
        /// Devices asked for.
        devices: u32,
        /// Devices of the cluster.
        available: u64,
        /// The cluster.
        cluster: String,
    },
    /// No degrees divide the devices.
    #[error(
        "no degrees of parallelism use {devices} devices: a tensor degree must divide the heads of every module and fit a node of \
         {per_node}, and replicas need a microbatch each of {microbatches}; change --devices or --microbatches"
    )]
    NoDegrees {
        /// Devices.
        devices: u32,
        /// Devices of a node.
        per_node: u32,
        /// Microbatches of a step.
        microbatches: u32,
    },
    /// The model has no partition.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// A stage has no cost.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Returns the fastest setups of `model` on the devices of `cluster`, within the settings.
///
/// `cancel` stops the work after the current search, with the setups so far. Equal seeds give equal reports under a budget in
/// iterations.
///
/// # Errors
/// [`TuneError`] if there are no degrees to try. Degrees that do not fit are part of the report.
pub fn tune(
    model: &ModelSpec,
    cluster: &ClusterSpec,
    settings: &TuneSettings,
    progress: &mut dyn TuneProgress,
    cancel: &AtomicBool,
) -> Result<TuneReport, TuneError> {
    let reserve = Bytes((cluster.device.memory_bytes.0 as f64 * settings.reserve) as u64);
    let mut cluster = cluster.clone();
    cluster.device.memory_bytes = cluster.device.memory_bytes.saturating_sub(reserve);
    let batch = batch(model, settings);
    let Degrees { mut sized, do_not_fit } = Degrees::of(model, &cluster, settings, &batch)?;
    sized.sort_by(|a, b| a.bound.total_cmp(&b.bound));
    progress.degrees(sized.len());
    let mut report = TuneReport {
        model: model.name.clone(),
        cluster: cluster.name.clone(),
        devices: settings.devices,
        microbatches: settings.microbatches,
        reserve,
        setups: Vec::new(),
        emulated: 0,
        do_not_fit,
        bounded: Vec::new(),
        complete: true,
    };
    let stopped = || cancel.load(Ordering::Relaxed);
    let mut kept: Vec<(Sized, Setup)> = Vec::new();
    for sized in sized {
        if stopped() {
            report.complete = false;
            break;
        }
        let worst = kept.get(settings.keep.saturating_sub(1)).map(|(_, setup)| setup.seconds);
        if worst.is_some_and(|worst| sized.bound >= worst) {
            report.bounded.push(sized.parallel());
            continue;
        }
        let trial = Trial::new(&sized, settings, cancel);
        let found = trial.emulate(&Layout::usual(&sized.planning)?, settings.budget)?;
        progress.emulated(sized.parallel(), found.as_ref());
        report.emulated += 1;
        match found {
            Some(setup) => keep(&mut kept, settings.keep, sized, setup),
            None => report.do_not_fit.push(sized.parallel()),
        }
    }
    progress.refining(kept.len());
    for (sized, setup) in &mut kept {
        if stopped() {
            report.complete = false;
            break;
        }
        if let Some(better) = refine::refined(sized, settings, setup, cancel)? {
            *setup = better;
        }
        progress.refined(setup);
    }
    report.setups = kept.into_iter().map(|(_, setup)| setup).collect();
    report.setups.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    Ok(report)
}

/// The batch of one step, of all replicas together.
fn batch(model: &ModelSpec, settings: &TuneSettings) -> BatchMeta {
    sample(model, 1, settings.seed, Some(settings.microbatches)).pop().unwrap_or_default()
}

/// Adds a setup, and keeps the fastest `limit`.
fn keep(kept: &mut Vec<(Sized, Setup)>, limit: usize, sized: Sized, setup: Setup) {
    let at = kept.partition_point(|(_, other)| other.seconds <= setup.seconds);
    kept.insert(at, (sized, setup));
    kept.truncate(limit.max(1));
}
