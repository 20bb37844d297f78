//! Layouts of a model at given degrees: segments, routes and sizes of sub-microbatches.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use dip_core::{Budget, ModuleId, Partition, Seconds};
use dip_sched::{PartitionError, Partitioner, routed_partitions};

use super::degrees::Sized;
use super::trial::Trial;
use super::{LAST_SEARCH, Setup, TuneError, TuneSettings};

/// Multiples of the paper's sub-microbatch sizes that are tried.
pub(super) const SIZE_SCALES: [f64; 3] = [0.5, 1.0, 2.0];
/// Multiples of the paper's numbers of segments that are tried besides the usual one.
const SEGMENT_FACTORS: [u32; 2] = [1, 4];
/// The multiple that searches usually take.
const USUAL_SEGMENTS: u32 = 2;

/// Segments, routes and sub-microbatches of the modules.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Layout {
    /// Segments, as a multiple of the paper's rule.
    pub segment_factor: u32,
    /// The ways of the modules through the ranks.
    pub route: RouteMix,
    /// Instances of a sub-microbatch, as a multiple of the paper's rule.
    pub size_scale: f64,
    /// Segments of each module.
    pub segments: Vec<u32>,
    /// Instances of a sub-microbatch of each module.
    pub sub_microbatch: Vec<u32>,
    #[serde(skip)]
    pub(super) partition: Partition,
}

/// The ways of all modules through the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteMix {
    /// All modules on loops.
    Loop,
    /// All modules with several segments on waves.
    Wave,
    /// Some of both.
    Mixed,
}

impl Layout {
    /// The paper's sizes and twice its segments, on loops.
    pub(super) fn usual(sized: &Sized) -> Result<Self, PartitionError> {
        let partition = scaled(sized, 1.0).with_segment_factor(USUAL_SEGMENTS).partition()?;
        Ok(Self::of(partition, USUAL_SEGMENTS, 1.0))
    }

    fn of(partition: Partition, segment_factor: u32, size_scale: f64) -> Self {
        let modules = || (0..partition.modules.len()).map(ModuleId::from);
        let (mut waves, mut loops) = (false, false);
        for module in modules() {
            let mut chunks = partition.module(module).chunks.iter();
            match chunks.find(|chunk| chunk.segment.0 == 1) {
                Some(second) if second.rank.0 > 0 => waves = true,
                Some(_) => loops = true,
                None => {}
            }
        }
        Self {
            segment_factor,
            route: match (waves, loops) {
                (true, false) => RouteMix::Wave,
                (true, true) => RouteMix::Mixed,
                (false, _) => RouteMix::Loop,
            },
            size_scale,
            segments: modules().map(|m| partition.segments(m)).collect(),
            sub_microbatch: modules().map(|m| partition.module(m).sub_microbatch).collect(),
            partition,
        }
    }
}

/// A partitioner with this multiple of the paper's sub-microbatch sizes.
pub(super) fn scaled(sized: &Sized, scale: f64) -> Partitioner<'_> {
    let by_rule = sized.planning.partition();
    let modules = (0..by_rule.modules.len()).map(ModuleId::from);
    modules.fold(sized.planning.partitioner(), |all, module| {
        let instances = f64::from(by_rule.module(module).sub_microbatch) * scale;
        all.with_sub_microbatch(module, instances.ceil() as u32)
    })
}

/// The computation of the busiest rank by the fastest strategies: no plan of the layout is shorter.
fn busiest(sized: &Sized, layout: &Layout) -> Result<Seconds, TuneError> {
    let planning = sized.planning.clone().with_partition(layout.partition.clone());
    let loads = planning.rank_loads(&sized.batch).map_err(PartitionError::from)?;
    let of_rank = |rank: usize| Seconds(loads.iter().map(|load| load[rank]).sum());
    Ok((0..planning.ranks() as usize).map(of_rank).fold(Seconds::ZERO, Seconds::max))
}

/// The budget of the last search.
fn last_budget(settings: &TuneSettings) -> Budget {
    match settings.budget {
        Budget::Time(time) => Budget::Time(time * f64::from(LAST_SEARCH)),
        Budget::Iterations(n) => Budget::Iterations(n.saturating_mul(LAST_SEARCH.into())),
    }
}

/// A faster layout than that of `setup`, if there is one: other segments first, then other routes, then other sizes.
pub(super) fn refined(
    sized: &Sized,
    settings: &TuneSettings,
    setup: &Setup,
    cancel: &AtomicBool,
) -> Result<Option<Setup>, TuneError> {
    let trial = Trial::new(sized, settings, cancel);
    let mut tried = vec![setup.layout.partition.clone()];
    let mut best = setup.clone();
    let mut consider = |layout: Layout, best: &mut Setup| -> Result<(), TuneError> {
        if tried.contains(&layout.partition) || cancel.load(Ordering::Relaxed) {
            return Ok(());
        }
        tried.push(layout.partition.clone());
        if busiest(sized, &layout)? >= best.seconds {
            return Ok(());
        }
        if let Some(found) = trial.emulate(&layout, settings.budget)?
            && found.seconds < best.seconds
        {
            *best = found;
        }
        Ok(())
    };
    for factor in SEGMENT_FACTORS {
        let partition = scaled(sized, 1.0).with_segment_factor(factor).partition()?;
        consider(Layout::of(partition, factor, 1.0), &mut best)?;
    }
    let factor = best.layout.segment_factor;
    for partition in routed_partitions(&scaled(sized, 1.0).with_segment_factor(factor))? {
        consider(Layout::of(partition, factor, 1.0), &mut best)?;
    }
    let route = best.layout.route;
    for scale in SIZE_SCALES {
        let partitioner = scaled(sized, scale).with_segment_factor(factor);
        for partition in routed_partitions(&partitioner)? {
            let layout = Layout::of(partition, factor, scale);
            if layout.route == route {
                consider(layout, &mut best)?;
                break;
            }
        }
    }
    if !cancel.load(Ordering::Relaxed)
        && let Some(found) = trial.emulate(&best.layout, last_budget(settings))?
        && found.seconds < best.seconds
    {
        best = found;
    }
    Ok((best.seconds < setup.seconds).then_some(best))
}
