//! Sums over nodes: each bucket has an owner that is sent the parts of all nodes and sends back their sum.
//!
//! Buckets take owners in turn, so that every node sends and receives as much as in a ring: twice its share of what others have.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::{Bucket, sum_in_order};
use crate::runtime::nodes::NodeTransport;

const PART: u8 = 0;
const SUM: u8 = 1;
const ABSENT: u8 = 0;
const PRESENT: u8 = 1;

/// One rank of this node among the same ranks of the others.
pub(crate) struct Across<B: Backend> {
    pub transport: Arc<dyn NodeTransport>,
    pub rank: usize,
    /// Where sums over nodes are made.
    pub device: B::Device,
    /// The parts of buckets that this node owns, by node.
    pub parts: HashMap<usize, Vec<Option<Bucket<B>>>>,
}

impl<B: Backend> Across<B> {
    pub fn new(transport: Arc<dyn NodeTransport>, rank: usize, device: B::Device) -> Self {
        Self { transport, rank, device, parts: HashMap::new() }
    }

    /// The channel of this rank; the group of nodes has the first one.
    pub fn channel(&self) -> u32 {
        1 + self.rank as u32
    }

    /// The node that sums a bucket. Gradients and parameters of a chunk, two buckets, have the same.
    fn owner(&self, bucket: usize) -> usize {
        (bucket / 2 + self.rank) % self.transport.count()
    }

    /// Takes this node's own part of a bucket; gives the sum where it was the last that was missing.
    pub fn own(&mut self, bucket: usize, part: Bucket<B>) -> Option<(usize, Bucket<B>)> {
        let (own, owner) = (self.transport.number(), self.owner(bucket));
        if owner != own {
            self.transport.send(owner, self.channel(), encode(PART, bucket, part));
            return None;
        }
        self.add(own, bucket, part)
    }

    /// Takes what another node has sent; gives the sum of a bucket where it is complete.
    ///
    /// # Errors
    /// Where the message is none of this protocol; says what is wrong.
    pub fn received(
        &mut self,
        from: usize,
        bytes: &[u8],
    ) -> Result<Option<(usize, Bucket<B>)>, &'static str> {
        let (kind, bucket, tensors) = decode(bytes, &self.device).ok_or("has sent a broken sum")?;
        let owner = self.owner(bucket);
        match kind {
            PART if owner == self.transport.number() => {
                let parts = self.parts.get(&bucket);
                let others = parts.into_iter().flatten().flatten();
                if !others.into_iter().all(|other| is_alike(other, &tensors)) {
                    return Err("has sent gradients of another shape");
                }
                Ok(self.add(from, bucket, tensors))
            }
            SUM if owner == from => Ok(Some((bucket, tensors))),
            _ => Err("has sent the part of a bucket to a node that does not sum it"),
        }
    }

    fn add(&mut self, node: usize, bucket: usize, part: Bucket<B>) -> Option<(usize, Bucket<B>)> {
        let count = self.transport.count();
        let parts = self.parts.entry(bucket).or_insert_with(|| vec![None; count]);
        parts[node] = Some(part);
        if parts.iter().any(Option::is_none) {
            return None;
        }
        let parts = self.parts.remove(&bucket).into_iter().flatten().flatten();
        let sum = sum_in_order(parts, &self.device);
        let bytes = encode(SUM, bucket, sum.clone());
        let own = self.transport.number();
        for to in (0..count).filter(|&to| to != own) {
            self.transport.send(to, self.channel(), bytes.clone());
        }
        Some((bucket, sum))
    }
}

/// Whether two parts can be added: as many tensors, and as long where both have one.
fn is_alike<B: Backend>(a: &Bucket<B>, b: &Bucket<B>) -> bool {
    let fits = |(a, b): (&Option<Tensor<B, 1>>, &Option<Tensor<B, 1>>)| match (a, b) {
        (Some(a), Some(b)) => a.dims() == b.dims(),
        _ => true,
    };
    a.len() == b.len() && a.iter().zip(b).all(fits)
}

/// Kind, number of the bucket, number of tensors, and each tensor: whether it is there, its length, its values in f32.
fn encode<B: Backend>(kind: u8, bucket: usize, tensors: Bucket<B>) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((bucket as u64).to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    for tensor in tensors {
        let Some(tensor) = tensor else {
            bytes.push(ABSENT);
            continue;
        };
        bytes.push(PRESENT);
        bytes.extend((tensor.dims()[0] as u64).to_le_bytes());
        bytes.extend_from_slice(tensor.into_data().convert::<f32>().as_bytes());
    }
    bytes
}

/// Reads [`encode`]; `None` where that has not written it. Nothing is allocated beyond the length of the message.
fn decode<B: Backend>(mut bytes: &[u8], device: &B::Device) -> Option<(u8, usize, Bucket<B>)> {
    let kind = take(&mut bytes, 1)?[0];
    let bucket = take_number(&mut bytes)?;
    let count = take_number(&mut bytes)?;
    let mut tensors = Bucket::new();
    for _ in 0..count {
        tensors.push(match take(&mut bytes, 1)?[0] {
            ABSENT => None,
            PRESENT => {
                let length = take_number(&mut bytes)?;
                let values = take(&mut bytes, length.checked_mul(4)?)?.chunks_exact(4);
                let values: Vec<f32> =
                    values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                Some(Tensor::from_data(TensorData::new(values, [length]), device))
            }
            _ => return None,
        });
    }
    bytes.is_empty().then_some((kind, bucket, tensors))
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let number = take(bytes, 8)?.try_into().ok()?;
    usize::try_from(u64::from_le_bytes(number)).ok()
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    #[test]
    fn buckets_come_back_bit_by_bit_and_broken_ones_do_not() {
        let device = Default::default();
        let values = [1.5f32, -0.0, f32::MIN_POSITIVE, 1e30];
        let tensor = Tensor::<Flex, 1>::from_floats(values, &device);
        let bytes = encode(SUM, 5, vec![Some(tensor), None]);
        let (kind, bucket, tensors) = decode::<Flex>(&bytes, &device).unwrap();
        assert_eq!((kind, bucket, tensors.len()), (SUM, 5, 2));
        let found = tensors[0].clone().unwrap().into_data().to_vec::<f32>().unwrap();
        assert_eq!(found.map_bits(), values.to_vec().map_bits());
        for length in 0..bytes.len() {
            assert!(decode::<Flex>(&bytes[..length], &device).is_none(), "{length}");
        }
        let huge = [&[SUM], &[0; 8][..], &u64::MAX.to_le_bytes()].concat();
        assert!(decode::<Flex>(&huge, &device).is_none());
    }

    trait Bits {
        fn map_bits(self) -> Vec<u32>;
    }

    impl Bits for Vec<f32> {
        fn map_bits(self) -> Vec<u32> {
            self.into_iter().map(f32::to_bits).collect()
        }
    }
}
