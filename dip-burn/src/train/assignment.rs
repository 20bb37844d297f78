//! The microbatches of each replica, and the time of an iteration over all replicas.

use std::sync::Arc;

use dip_core::{BatchMeta, BatchSplit, Bytes, Plan, RankId, Seconds, Trace};

use super::data::BatchContent;
use crate::batch::Batch;

/// Assigns the microbatches of a batch to replicas. Returns the numbers of the microbatches of each replica; each number must
/// occur once.
pub type Assign = Box<dyn Fn(&BatchMeta) -> Vec<Vec<usize>> + Send>;

/// Assigns microbatches in turn, regardless of their size.
pub(super) fn in_turn(batch: &BatchMeta, replicas: usize) -> Vec<Vec<usize>> {
    let count = batch.microbatches.len();
    (0..replicas).map(|r| (r..count).step_by(replicas).collect()).collect()
}

/// True if every microbatch of a batch is assigned once, and there is an entry for each replica.
pub(super) fn is_complete(assigned: &[Vec<usize>], batch: &BatchMeta, replicas: usize) -> bool {
    let mut all: Vec<usize> = assigned.iter().flatten().copied().collect();
    all.sort_unstable();
    assigned.len() == replicas && all.into_iter().eq(0..batch.microbatches.len())
}

/// The metadata of one replica's microbatches.
pub(super) fn meta_of(batch: &BatchMeta, own: &[usize]) -> BatchMeta {
    let microbatches = own.iter().map(|&k| batch.microbatches[k].clone()).collect();
    BatchMeta { iteration: batch.iteration, microbatches }
}

/// The batches of the replicas of this process, from their microbatches one after another. Each has the number of trained tokens
/// of the whole batch, which normalises the loss.
pub(super) fn batches(
    content: BatchContent,
    assigned: &[Vec<usize>],
    splits: Vec<BatchSplit>,
) -> Vec<Arc<Batch>> {
    let BatchContent { microbatches, trained_tokens, .. } = content;
    let mut microbatches = microbatches.into_iter();
    let batch = |(own, split): (&Vec<usize>, BatchSplit)| {
        let microbatches = microbatches.by_ref().take(own.len()).collect();
        Arc::new(Batch { microbatches, split, trained_tokens })
    };
    assigned.iter().zip(splits).map(batch).collect()
}

/// The times of an iteration over all replicas.
pub(super) struct IterationTimes {
    /// Makespan of the slowest replica, as measured.
    pub makespan: Seconds,
    /// Critical path of the slowest replica, from its measured stage times.
    pub critical_path: Seconds,
    /// Share of the time of all ranks in which no stage ran.
    pub bubble_ratio: f64,
    /// Largest gap of a plan to its bound, as a share of the bound.
    pub gap: f64,
}

impl IterationTimes {
    pub fn of(traces: &[Trace], plans: &[&Plan]) -> Self {
        let most =
            |seconds: &mut dyn Iterator<Item = Seconds>| seconds.fold(Seconds::ZERO, Seconds::max);
        let whole = side_by_side(traces);
        let paths = traces.iter().zip(plans).filter_map(|(t, p)| t.critical_path(&p.graph));
        Self {
            makespan: whole.makespan(),
            critical_path: most(&mut { paths }),
            bubble_ratio: whole.bubble_ratio(),
            gap: plans.iter().map(|p| p.gap()).fold(0.0, f64::max),
        }
    }
}

/// Planned static bytes plus measured activations, rank by rank of all replicas.
pub(super) fn peak_bytes(plans: &[&Plan], activations: &[Bytes]) -> Vec<Bytes> {
    let fixed = plans.iter().flat_map(|plan| plan.graph.static_bytes.iter());
    fixed.zip(activations).map(|(&fixed, &activations)| fixed + activations).collect()
}

/// The traces of all replicas as one, with the ranks of the replicas one after another.
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
    fn an_assignment_is_complete_if_every_microbatch_comes_once() {
        assert!(is_complete(&in_turn(&batch(5), 2), &batch(5), 2));
        assert!(!is_complete(&[vec![0, 1], vec![1]], &batch(3), 2));
        assert!(!is_complete(&[vec![0, 1]], &batch(3), 1));
        assert!(!is_complete(&[vec![0], vec![1]], &batch(2), 3));
    }

    #[test]
    fn the_bubble_ratio_counts_the_ranks_of_all_replicas() {
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
