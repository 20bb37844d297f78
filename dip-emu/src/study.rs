//! What a plan takes when stages do not take their planned times.

use dip_core::{ExecError, Executor, Plan, RankId, Seconds, Trace};
use serde::Serialize;

use crate::execute::{LinkModel, Noise, VirtualExecutor};

/// The times of a plan in several samples of noise.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct NoiseStudy {
    /// The makespan of the plan without noise.
    pub planned_s: Seconds,
    /// The makespan of each sample, ascending.
    pub makespans_s: Vec<Seconds>,
    /// Their mean.
    pub mean_s: Seconds,
    /// 5 % of the samples are shorter.
    pub p5_s: Seconds,
    /// 5 % of the samples are longer.
    pub p95_s: Seconds,
    /// One entry per rank.
    pub ranks: Vec<RankWaiting>,
}

/// The time in which a rank runs no stage, until the last rank ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct RankWaiting {
    /// The rank.
    pub rank: RankId,
    /// Without noise.
    pub planned_s: Seconds,
    /// Mean over the samples.
    pub mean_s: Seconds,
}

/// Runs `plan` with `samples` samples of `noise`, at least one.
///
/// # Errors
/// [`ExecError`] if the plan cannot be run.
pub fn noise_study(
    plan: &Plan,
    links: LinkModel,
    noise: Noise,
    samples: u32,
) -> Result<NoiseStudy, ExecError> {
    let executor = VirtualExecutor::new(links);
    let planned = executor.clone().execute(plan)?;
    let mut ranks: Vec<_> = (0..plan.order.len())
        .map(RankId::from)
        .map(|rank| RankWaiting { rank, planned_s: waiting(&planned, rank), mean_s: Seconds::ZERO })
        .collect();
    let count = samples.max(1);
    let mut makespans = Vec::with_capacity(count as usize);
    for sample in 0..count {
        let trace = executor.clone().with_noise(noise, sample.into()).execute(plan)?;
        for rank in &mut ranks {
            rank.mean_s += Seconds(waiting(&trace, rank.rank).0 / f64::from(count));
        }
        makespans.push(trace.makespan());
    }
    makespans.sort_by(Seconds::total_cmp);
    let at = |share: f64| makespans[((makespans.len() - 1) as f64 * share).round() as usize];
    Ok(NoiseStudy {
        planned_s: planned.makespan(),
        mean_s: Seconds(makespans.iter().map(|m| m.0).sum::<f64>() / f64::from(count)),
        p5_s: at(0.05),
        p95_s: at(0.95),
        makespans_s: makespans,
        ranks,
    })
}

fn waiting(trace: &Trace, rank: RankId) -> Seconds {
    let spans = trace.spans.iter().filter(|span| span.rank == rank);
    trace.makespan() - spans.map(|span| span.end - span.start).sum()
}
