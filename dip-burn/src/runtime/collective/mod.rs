//! Sums over the replicas of a pipeline rank.
//!
//! The ranks of a process hand their parts to a thread that sums beside the training, so that a reduction runs as soon as it can
//! and nobody waits for it before the step. Where a run has several nodes, that thread sums over them, too.
//!
//! Between nodes this uses burn-communication, the transport of Burn's distributed engine, but not the engine itself. In
//! burn-collective 0.21
//! - the barrier behind an all-reduce between nodes clears a copy of the list of those that have arrived, so that the second
//!   all-reduce of a process never ends, whatever the strategy (`SyncService::sync`);
//! - the order of a sum is that of a hash map: three peers that add 1, 1e8 and -1e8 get 0 in one call and 1 in another;
//! - a peer that ends, on this node or another, leaves the others waiting without limit, and there is one group of peers for a
//!   process, where the ranks of a pipeline need one each.
//!
//! burn-communication's `TensorDataService` waits in the same way, by its source: a tensor that is exposed between the look-up and
//! the wait for it is not noticed, and a peer that is lost is a panic of a background task. Its connections have neither.
//!
//! NCCL, which cubecl-cuda has behind Burn's `distributed` feature, serves gradients that Burn's autodiff hands over, for the
//! devices of one process: the identity of its communicator never leaves it. Replicas on CUDA devices are summed as on any other
//! device, by copies from device to device and, between nodes, through the memory of the host.

mod across;
mod slices;
mod thread;

pub use thread::ThreadCollective;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use thiserror::Error;

use crate::model::to_device;
use crate::params::Bucket;

/// The lengths of the tensors of each bucket.
pub type Layout = Vec<Vec<usize>>;

/// A replica that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("another replica of this rank is gone; its own error says why")]
pub struct ReplicaGone;

/// One replica's end of the sums over all replicas.
///
/// Every replica contributes to the same buckets, and the sums must be bit-equal on all of them, or their weights drift apart.
pub trait Collective<B: Backend>: Send + Sync {
    /// Hands over this replica's part of a bucket. Does not wait for the others.
    ///
    /// # Errors
    /// [`ReplicaGone`] where another replica has ended.
    fn contribute(&self, bucket: usize, part: Bucket<B>) -> Result<(), ReplicaGone>;

    /// The sum of the parts of all replicas, on this one's device; waits for the slowest.
    ///
    /// # Errors
    /// [`ReplicaGone`] where another replica has ended.
    fn sum(&self, bucket: usize) -> Result<Bucket<B>, ReplicaGone>;
}

/// Adds neighbours in pairs, then those sums in pairs, and so on: what comes out depends neither on who came first nor, where
/// nodes have 1, 2, 4 or 8 replicas each, on how many of all replicas a node has, for its own sum is one of those on the way.
fn in_pairs<T>(items: impl Iterator<Item = T>, mut add: impl FnMut(T, T) -> T) -> Option<T> {
    // Each the sum of 2 to the power of its level, with falling levels.
    let mut sums: Vec<(u32, T)> = Vec::new();
    for item in items {
        let (mut level, mut sum) = (0, item);
        while let Some((_, left)) = sums.pop_if(|(other, _)| *other == level) {
            (level, sum) = (level + 1, add(left, sum));
        }
        sums.push((level, sum));
    }
    sums.into_iter().map(|(_, sum)| sum).rev().reduce(|right, left| add(left, right))
}

/// The sum of buckets over replicas.
fn sum_of<B: Backend>(parts: impl Iterator<Item = Bucket<B>>, device: &B::Device) -> Bucket<B> {
    let add = |mut sum: Bucket<B>, part: Bucket<B>| {
        sum.iter_mut().zip(part).for_each(|(sum, x)| add_to(sum, x, device));
        sum
    };
    in_pairs(parts, add).unwrap_or_default()
}

/// Adds where both are there; one alone is the sum.
fn add_to<B: Backend>(sum: &mut Option<Tensor<B, 1>>, x: Option<Tensor<B, 1>>, device: &B::Device) {
    *sum = match (sum.take(), x) {
        (Some(a), Some(b)) => Some(to_device(a, device) + to_device(b, device)),
        (one, other) => one.or(other),
    };
}

#[cfg(test)]
mod tests {
    use super::in_pairs;

    #[test]
    fn sums_in_pairs_are_those_of_nodes_with_a_power_of_two_replicas() {
        let text = |range: std::ops::Range<usize>| range.map(|i| i.to_string());
        let add = |a: String, b: String| format!("({a}+{b})");
        assert_eq!(in_pairs(text(0..0), add), None);
        assert_eq!(in_pairs(text(0..7), add).unwrap(), "(((0+1)+(2+3))+((4+5)+6))");
        for (nodes, replicas) in [(3, 1), (3, 2), (5, 2), (2, 4), (3, 4), (7, 8)] {
            let of_node = |k| in_pairs(text(k * replicas..(k + 1) * replicas), add).unwrap();
            let of_all = in_pairs(text(0..nodes * replicas), add);
            assert_eq!(in_pairs((0..nodes).map(of_node), add), of_all);
        }
    }
}
