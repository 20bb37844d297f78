//! Sums over nodes: each node adds the parts of one slice of every bucket, and sends the sum to all.
//!
//! Slices have equal lengths, so that all nodes send, receive and add the same amount for any number and sizes of buckets. The
//! additions run in host memory, next to the messages. The device gets complete sums.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::Layout;
use super::slices::{PART, SliceMessage, Slices};
use crate::params::Bucket;
use crate::runtime::nodes::NodeTransport;

/// The sums of one rank over this node and at least one other.
pub(super) struct NodeSums<B: Backend> {
    pub transport: Arc<dyn NodeTransport>,
    rank: usize,
    /// Device of the sums.
    device: B::Device,
    slices: Slices,
    /// By bucket and node: the parts of this node's slice that have arrived, until the slice is complete.
    parts: HashMap<usize, Vec<Option<Vec<u8>>>>,
    /// By bucket and node: the sums of slices that have arrived, until the bucket is complete.
    sums: HashMap<usize, Vec<Option<Vec<u8>>>>,
}

impl<B: Backend> NodeSums<B> {
    pub fn new(
        transport: Arc<dyn NodeTransport>,
        rank: usize,
        device: B::Device,
        layout: Layout,
    ) -> Self {
        let slices = Slices::new(layout, transport.count());
        let (parts, sums) = (HashMap::new(), HashMap::new());
        let sums = Self { transport, rank, device, slices, parts, sums };
        sums.transport.allow(sums.channel(), sums.slices.max_message_bytes());
        sums
    }

    /// The channel of this rank; the group of nodes uses the first one.
    pub fn channel(&self) -> u32 {
        1 + self.rank as u32
    }

    /// True if a sum waits for messages of other nodes.
    pub fn is_waiting(&self) -> bool {
        !self.parts.is_empty() || !self.sums.is_empty()
    }

    /// Adds this node's part of a bucket. Its sum completes with a message of another node.
    pub fn contribute(&mut self, bucket: usize, part: Bucket<B>) {
        let on_host = |tensor: Tensor<B, 1>| tensor.into_data().convert::<f32>();
        let part: Vec<_> = part.into_iter().map(|tensor| tensor.map(on_host)).collect();
        self.sums.insert(bucket, vec![None; self.transport.count()]);
        for node in self.others() {
            let bytes = self.slices.part(bucket, node, &part);
            self.transport.send(&[node], self.channel(), bytes);
        }
        let own = self.transport.number();
        self.add(own, bucket, self.slices.part(bucket, own, &part));
    }

    /// Takes a message of another node; returns the sum of a bucket if that completes it.
    ///
    /// # Errors
    /// Describes a message that no node of this run sends at this point.
    pub fn receive(
        &mut self,
        from: usize,
        bytes: Vec<u8>,
    ) -> Result<Option<(usize, Bucket<B>)>, String> {
        let SliceMessage { kind, bucket } =
            self.slices.read(&bytes, from, self.transport.number())?;
        if kind == PART {
            if self.parts.get(&bucket).is_some_and(|parts| parts[from].is_some()) {
                return Err(format!("has sent its part of bucket {bucket} twice"));
            }
            self.add(from, bucket, bytes);
        } else {
            let Some(sums) = self.sums.get_mut(&bucket) else {
                return Err(format!("has sent the sum of bucket {bucket} before all parts of it"));
            };
            if sums[from].replace(bytes).is_some() {
                return Err(format!("has sent its sum of bucket {bucket} twice"));
            }
        }
        self.finished(bucket)
    }

    /// Adds the parts of this node's slice once all have arrived, and sends the sum to the others.
    fn add(&mut self, node: usize, bucket: usize, part: Vec<u8>) {
        let count = self.transport.count();
        let parts = self.parts.entry(bucket).or_insert_with(|| vec![None; count]);
        parts[node] = Some(part);
        if parts.iter().any(Option::is_none) {
            return;
        }
        let parts: Vec<_> = self.parts.remove(&bucket).into_iter().flatten().flatten().collect();
        let own = self.transport.number();
        let sum = self.slices.sum(bucket, own, &parts);
        self.transport.send(&self.others(), self.channel(), sum.clone());
        if let Some(sums) = self.sums.get_mut(&bucket) {
            sums[own] = Some(sum);
        }
    }

    /// The sum of a bucket, once the sums of all its slices have arrived.
    fn finished(&mut self, bucket: usize) -> Result<Option<(usize, Bucket<B>)>, String> {
        let is_whole = |sums: &Vec<Option<Vec<u8>>>| sums.iter().all(Option::is_some);
        if !self.sums.get(&bucket).is_some_and(is_whole) {
            return Ok(None);
        }
        let sums: Vec<_> = self.sums.remove(&bucket).into_iter().flatten().flatten().collect();
        let on_device = |values: Vec<f32>| {
            let length = values.len();
            Tensor::from_data(TensorData::new(values, [length]), &self.device)
        };
        let tensors = self.slices.join(bucket, &sums)?;
        Ok(Some((bucket, tensors.into_iter().map(|t| t.map(on_device)).collect())))
    }

    fn others(&self) -> Vec<usize> {
        let own = self.transport.number();
        (0..self.transport.count()).filter(|&node| node != own).collect()
    }
}
