//! Sums over the replicas of a pipeline rank.
//!
//! The replicas of a process hand their parts to a thread that sums while they train: a reduction runs as soon as its last part
//! is there, and nobody waits for it before the optimiser step. In a run of several processes that thread also sums over processes.
//!
//! Sums over processes do not use MPI's reductions, whose order of additions depends on the library and the number of processes:
//! the sums here have the bits of a single process.
//!
//! NCCL, part of Burn's `distributed` feature in cubecl-cuda, sums gradients of Burn's autodiff on the devices of one process only.
//! Replicas on CUDA devices are summed as on any other device: by copies between devices and, between processes, through host
//! memory.

mod process_sums;
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
    /// Device of each replica of this process.
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

/// Adds neighbours in pairs, then their sums in pairs, and so on. The result does not depend on the order of arrival.
fn in_pairs<T>(items: impl Iterator<Item = T>, add: impl FnMut(T, T) -> T) -> Option<T> {
    in_blocks(items.map(|item| (0, item)), add)
}

/// As [`in_pairs`], from the sums of blocks of `2^level` items that begin at a multiple of `2^level`: the result does not depend on
/// the blocks.
fn in_blocks<T>(
    blocks: impl Iterator<Item = (u32, T)>,
    mut add: impl FnMut(T, T) -> T,
) -> Option<T> {
    // An entry of level n is the sum of 2^n items; levels fall.
    let mut sums: Vec<(u32, T)> = Vec::new();
    for (mut level, mut sum) in blocks {
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
    use std::ops::Range;

    use super::process_sums::{blocks_of, level};
    use super::{in_blocks, in_pairs};

    #[test]
    fn sums_of_blocks_are_the_sums_of_pairs_however_processes_share_the_replicas() {
        let text = |range: Range<usize>| range.map(|i| i.to_string());
        let add = |a: String, b: String| format!("({a}+{b})");
        assert_eq!(in_pairs(text(0..0), add), None);
        assert_eq!(in_pairs(text(0..7), add).unwrap(), "(((0+1)+(2+3))+((4+5)+6))");
        assert_eq!(blocks_of(0..7), [0..4, 4..6, 6..7]);
        assert_eq!(blocks_of(5..16), [5..6, 6..8, 8..16]);
        for replicas in 1..20 {
            for first in 0..=replicas {
                for second in first..=replicas {
                    let processes = [0..first, first..second, second..replicas];
                    let blocks = processes.into_iter().flat_map(blocks_of);
                    let sum =
                        |block: Range<usize>| (level(&block), in_pairs(text(block), add).unwrap());
                    let found = in_blocks(blocks.map(sum), add);
                    assert_eq!(found, in_pairs(text(0..replicas), add), "{first} {second}");
                }
            }
        }
    }
}
