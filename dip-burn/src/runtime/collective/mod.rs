//! Sums over the replicas of a pipeline rank.
//!
//! The replicas of a process hand their parts to a thread that sums while they train: a reduction runs as soon as its last part
//! is there, and nobody waits for it before the optimiser step. In a run of several nodes that thread also sums over nodes.
//!
//! Between nodes this uses burn-communication, the transport of Burn's distributed engine, but not the engine itself, for three
//! reasons in burn-collective 0.21:
//! - the barrier after an all-reduce between nodes clears a copy of the list of peers that have arrived, so that the second
//!   all-reduce of a process never ends, whatever the strategy (`SyncService::sync`);
//! - sums follow the order of a hash map: three peers that add 1, 1e8 and -1e8 get 0 in one call and 1 in another;
//! - a peer that ends leaves the others waiting for ever, and a process has one group of peers, where each rank needs its own.
//!
//! burn-communication's `TensorDataService` can wait for ever, too: it misses a tensor that is exposed between the look-up and the
//! wait, and a lost peer is a panic in a background task. Its connections have neither fault.
//!
//! NCCL, part of Burn's `distributed` feature in cubecl-cuda, sums gradients of Burn's autodiff on the devices of one process only.
//! Replicas on CUDA devices are summed as on any other device: by copies between devices and, between nodes, through host memory.

mod node_sums;
mod reducer;
mod slices;
mod thread;

pub use thread::ThreadCollectives;

use std::io;
use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::RankId;
use thiserror::Error;

use crate::model::to_device;
use crate::params::Bucket;

/// Lengths of the tensors of each bucket, in values.
pub type Layout = Vec<Vec<usize>>;

/// Another replica of a rank has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("another replica of this rank is gone; its own error says why")]
pub struct ReplicaGone;

/// One replica's end of the sums over all replicas of a rank.
///
/// Every replica contributes to the same buckets. The sums must be bit-equal on all replicas, or their weights drift apart.
pub trait Collective<B: Backend>: Send + Sync {
    /// Hands over this replica's part of a bucket. Does not wait for the others.
    ///
    /// # Errors
    /// [`ReplicaGone`] if another replica has ended.
    fn contribute(&self, bucket: usize, part: Bucket<B>) -> Result<(), ReplicaGone>;

    /// The sum of the parts of all replicas, on this one's device. Waits for the slowest.
    ///
    /// # Errors
    /// [`ReplicaGone`] if another replica has ended.
    fn sum(&self, bucket: usize) -> Result<Bucket<B>, ReplicaGone>;
}

/// Connects the replicas of each rank.
pub trait CollectiveFactory<B: Backend>: Send + Sync {
    /// One member for each replica of this process, in order, connected with the same rank of all other processes.
    ///
    /// # Errors
    /// An I/O error if the replicas cannot be connected; it ends the run.
    fn connect(&self, replicas: RankReplicas<'_, B>) -> io::Result<Vec<Arc<dyn Collective<B>>>>;
}

/// The replicas of one rank in this process.
#[derive(Debug)]
#[non_exhaustive]
pub struct RankReplicas<'a, B: Backend> {
    /// The rank.
    pub rank: RankId,
    /// Device of each replica.
    pub devices: &'a [B::Device],
    /// Lengths of the tensors of each bucket, in values.
    pub layout: Layout,
}

impl<'a, B: Backend> RankReplicas<'a, B> {
    /// The replicas of `rank`, each on its device, with buckets of `layout`.
    pub fn new(rank: RankId, devices: &'a [B::Device], layout: Layout) -> Self {
        Self { rank, devices, layout }
    }
}

/// Adds neighbours in pairs, then their sums in pairs, and so on. The result does not depend on the order of arrival. It does not
/// depend on the number of replicas per node either, if every node has 1, 2, 4 or 8: each node's sum is then an intermediate sum.
fn in_pairs<T>(items: impl Iterator<Item = T>, mut add: impl FnMut(T, T) -> T) -> Option<T> {
    // An entry of level n is the sum of 2^n items; levels fall.
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

/// Adds `x` to `sum`; if only one of the two exists, it is the sum.
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
    fn sums_in_pairs_do_not_depend_on_a_power_of_two_replicas_per_node() {
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
