//! A batch over the replicas of a pipeline: who trains which microbatches, and what an iteration took on all of them.

use std::sync::Arc;

use dip_core::{BatchMeta, BatchSplit, Bytes, Plan, RankId, Seconds, Trace};

use super::data::Microbatches;
use crate::batch::Batch;

/// Deals the microbatches of a batch to replicas: for each replica their numbers. Each must come once.
pub type Deal = Box<dyn Fn(&BatchMeta) -> Vec<Vec<usize>> + Send>;

/// Microbatches dealt in turn, whatever they hold.
pub(super) fn in_turn(batch: &BatchMeta, replicas: usize) -> Vec<Vec<usize>> {
    let count = batch.microbatches.len();
    (0..replicas).map(|r| (r..count).step_by(replicas).collect()).collect()
}

/// Whether every microbatch of a batch is dealt once, to as many replicas as there are.
pub(super) fn is_complete(dealt: &[Vec<usize>], batch: &BatchMeta, replicas: usize) -> bool {
    let mut all: Vec<usize> = dealt.iter().flatten().copied().collect();
    all.sort_unstable();
    dealt.len() == replicas && all.into_iter().eq(0..batch.microbatches.len())
}

/// What the planner sees of a replica's microbatches.
pub(super) fn meta_of(batch: &BatchMeta, own: &[usize]) -> BatchMeta {
    let microbatches = own.iter().map(|&k| batch.microbatches[k].clone()).collect();
    BatchMeta { iteration: batch.iteration, microbatches }
}

/// The batches of the replicas of this node, whose microbatches are one behind the other. Each has the trained tokens of the whole
/// batch, which the loss is normalised by.
pub(super) fn batches(
    content: Microbatches,
    dealt: &[Vec<usize>],
    splits: Vec<BatchSplit>,
) -> Vec<Arc<Batch>> {
    let Microbatches { wanted, trained_tokens } = content;
    let mut microbatches = wanted.into_iter();
    let batch = |(own, split): (&Vec<usize>, BatchSplit)| {
        let microbatches = microbatches.by_ref().take(own.len()).collect();
        Arc::new(Batch { microbatches, split, trained_tokens })
    };
    dealt.iter().zip(splits).map(batch).collect()
}

/// What an iteration took, all replicas together.
pub(super) struct Times {
    /// The slowest replica, as measured.
    pub makespan: Seconds,
    /// The slowest replica, as predicted.
    pub predicted: Seconds,
    /// The slowest replica by the timeline of its measured stage times.
    pub critical_path: Seconds,
    /// Share of the time of all ranks of all replicas in which no stage ran.
    pub bubble_ratio: f64,
    /// The largest gap of a plan to its bound.
    pub gap: f64,
}

impl Times {
    pub fn of(traces: &[Trace], plans: &[&Plan]) -> Self {
        let most =
            |seconds: &mut dyn Iterator<Item = Seconds>| seconds.fold(Seconds::ZERO, Seconds::max);
        let whole = side_by_side(traces);
        let paths = traces.iter().zip(plans).filter_map(|(t, p)| t.critical_path(&p.graph));
        Self {
            makespan: whole.makespan(),
            predicted: most(&mut plans.iter().map(|p| p.predicted.makespan_s)),
            critical_path: most(&mut { paths }),
            bubble_ratio: whole.bubble_ratio(),
            gap: plans.iter().map(|p| p.gap()).fold(0.0, f64::max),
        }
    }
}

/// Static bytes of the plans and measured activations together, rank by rank of all replicas.
pub(super) fn peak_bytes(plans: &[&Plan], activations: &[Bytes]) -> Vec<Bytes> {
    let fixed = plans.iter().flat_map(|plan| plan.graph.static_bytes.iter());
    fixed.zip(activations).map(|(&fixed, &activations)| fixed + activations).collect()
}

/// The traces of all replicas as one, with the ranks of the second behind those of the first, and so on.
fn side_by_side(traces: &[Trace]) -> Trace {
    let mut whole = Trace::default();
    for trace in traces {
        let first = whole.ranks;
        let beside =
            |span: &dip_core::Span| dip_core::Span { rank: RankId(first + span.rank.0), ..*span };
        whole.spans.extend(trace.spans.iter().map(beside));
        whole.ranks += trace.ranks;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::{MicrobatchMeta, Span, TaskId};

    fn batch(count: usize) -> BatchMeta {
        BatchMeta { iteration: 0, microbatches: vec![MicrobatchMeta::default(); count] }
    }

    #[test]
    fn a_dealing_is_complete_where_every_microbatch_comes_once() {
        assert!(is_complete(&in_turn(&batch(5), 2), &batch(5), 2));
        assert!(!is_complete(&[vec![0, 1], vec![1]], &batch(3), 2));
        assert!(!is_complete(&[vec![0, 1]], &batch(3), 1));
        assert!(!is_complete(&[vec![0], vec![1]], &batch(2), 3));
    }

    #[test]
    fn the_bubble_of_replicas_is_that_of_all_their_ranks() {
        let trace = |end: f64| {
            let span =
                Span { task: TaskId(0), rank: RankId(0), start: Seconds(0.0), end: Seconds(end) };
            Trace { ranks: 1, spans: vec![span] }
        };
        let whole = side_by_side(&[trace(4.0), trace(3.0)]);
        assert_eq!((whole.ranks, whole.makespan()), (2, Seconds(4.0)));
        assert!((whole.bubble_ratio() - 0.125).abs() < 1e-12);
    }
}
