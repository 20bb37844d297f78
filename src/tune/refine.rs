//! Looks for a faster layout of a model at given degrees.

use std::sync::atomic::{AtomicBool, Ordering};

use dip_core::{Budget, Seconds};
use dip_sched::{PartitionError, routed_partitions};

use super::degrees::Sized;
use super::layout::{Layout, SIZE_SCALES, scaled};
use super::trial::Trial;
use super::{LAST_SEARCH, Setup, TuneError, TuneSettings};

/// Multiples of the paper's numbers of segments that are tried besides the usual one.
const SEGMENT_FACTORS: [u32; 2] = [1, 4];
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
        let partition = scaled(&sized.planning, 1.0).with_segment_factor(factor).partition()?;
        consider(Layout::of(partition, factor, 1.0), &mut best)?;
    }
    let factor = best.layout.segment_factor;
    for partition in routed_partitions(&scaled(&sized.planning, 1.0).with_segment_factor(factor))? {
        consider(Layout::of(partition, factor, 1.0), &mut best)?;
    }
    let route = best.layout.route;
    for scale in SIZE_SCALES {
        let partitioner = scaled(&sized.planning, scale).with_segment_factor(factor);
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
