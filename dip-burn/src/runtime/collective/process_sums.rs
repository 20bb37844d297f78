//! Sums over processes: each process adds the parts of one slice of every bucket, and sends the sum to all.
//!
//! Slices have equal lengths, so that all processes send, receive and add the same amount for any number and sizes of buckets. The
//! additions run in host memory, next to the messages. The device gets complete sums.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::RankId;

use super::Layout;
use super::slices::{PART, SliceMessage, Slices};
use crate::params::Bucket;
use crate::runtime::group::ProcessGrid;
use crate::runtime::transport::{Transport, channel};

/// The sums of one rank over this process and at least one other.
pub(super) struct ProcessSums<B: Backend> {
    pub transport: Arc<dyn Transport>,
    rank: RankId,
    /// Device of the sums.
    device: B::Device,
    /// The processes that host replicas of the rank. Their places in this list are the numbers of slices.
    members: Vec<Member>,
    /// The place of this process.
    own: usize,
    slices: Slices,
    /// By bucket and member: the parts of this process's slice that have arrived, until the slice is complete.
    parts: HashMap<usize, Vec<Vec<Vec<u8>>>>,
    /// By bucket and member: the sums of slices that have arrived, until the bucket is complete.
    sums: HashMap<usize, Vec<Option<Vec<u8>>>>,
}

/// A process that hosts replicas of the rank.
struct Member {
    process: usize,
    /// Its blocks of replicas. It sends one part for each, because any larger sum would have other bits than in one process.
    blocks: Vec<Range<usize>>,
}

impl<B: Backend> ProcessSums<B> {
    /// `None` if this process hosts all replicas of the rank, or none.
    pub fn new(
        transport: &Arc<dyn Transport>,
        grid: &ProcessGrid,
        rank: RankId,
        device: B::Device,
        layout: Layout,
    ) -> Option<Self> {
        let member = |(process, replicas)| Member { process, blocks: blocks_of(replicas) };
        let members: Vec<Member> = grid.hosts_of_rank(rank).into_iter().map(member).collect();
        let own = members.iter().position(|member| member.process == transport.index())?;
        if members.len() == 1 {
            return None;
        }
        let slices = Slices::new(layout, members.len());
        let (parts, sums) = (HashMap::new(), HashMap::new());
        let transport = transport.clone();
        let sums = Self { transport, rank, device, members, own, slices, parts, sums };
        sums.transport.allow(sums.channel(), sums.slices.max_message_bytes());
        Some(sums)
    }

    /// The channel of this rank.
    pub fn channel(&self) -> u32 {
        channel::SUMS + self.rank.0
    }

    /// The blocks of replicas of this process.
    pub fn own_blocks(&self) -> &[Range<usize>] {
        &self.members[self.own].blocks
    }

    /// True if a process takes part in the sums.
    pub fn has_member(&self, process: usize) -> bool {
        self.member(process).is_some()
    }

    /// True if a sum waits for messages of other processes.
    pub fn is_waiting(&self) -> bool {
        !self.parts.is_empty() || !self.sums.is_empty()
    }

    /// Adds this process's part of a bucket, a sum for each of its blocks. The whole sum completes with a message of another process.
    pub fn contribute(&mut self, bucket: usize, blocks: Vec<Bucket<B>>) {
        let on_host = |tensor: Tensor<B, 1>| tensor.into_data().convert::<f32>();
        self.sums.insert(bucket, vec![None; self.members.len()]);
        for part in blocks {
            let part: Vec<_> = part.into_iter().map(|tensor| tensor.map(on_host)).collect();
            for place in self.others() {
                let bytes = self.slices.part(bucket, place, &part);
                self.transport.send(&[self.members[place].process], self.channel(), bytes);
            }
            self.add(self.own, bucket, self.slices.part(bucket, self.own, &part));
        }
    }

    /// Takes a message of another process; returns the sum of a bucket if that completes it.
    ///
    /// # Errors
    /// Describes a message that no process of this run sends at this point.
    pub fn receive(
        &mut self,
        from: usize,
        bytes: Vec<u8>,
    ) -> Result<Option<(usize, Bucket<B>)>, String> {
        let from = self.member(from).ok_or("hosts no replica of the rank whose sum it has sent")?;
        let SliceMessage { kind, bucket } = self.slices.read(&bytes, from, self.own)?;
        if kind == PART {
            let blocks = self.members[from].blocks.len();
            if self.parts.get(&bucket).is_some_and(|parts| parts[from].len() == blocks) {
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

    /// Adds the parts of this process's slice once all have arrived, and sends the sum to the others.
    fn add(&mut self, from: usize, bucket: usize, part: Vec<u8>) {
        let count = self.members.len();
        let parts = self.parts.entry(bucket).or_insert_with(|| vec![Vec::new(); count]);
        parts[from].push(part);
        let is_whole = |(member, parts): (&Member, &Vec<_>)| parts.len() == member.blocks.len();
        if !self.members.iter().zip(parts.iter()).all(is_whole) {
            return;
        }
        let parts: Vec<_> = self.parts.remove(&bucket).into_iter().flatten().flatten().collect();
        let blocks = self.members.iter().flat_map(|member| &member.blocks).map(level);
        let sum = self.slices.sum(bucket, self.own, blocks.zip(&parts));
        let to: Vec<usize> = self.others().map(|place| self.members[place].process).collect();
        self.transport.send(&to, self.channel(), sum.clone());
        if let Some(sums) = self.sums.get_mut(&bucket) {
            sums[self.own] = Some(sum);
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

    fn member(&self, process: usize) -> Option<usize> {
        self.members.iter().position(|member| member.process == process)
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<B> {
        let own = self.own;
        (0..self.members.len()).filter(move |&place| place != own)
    }
}

/// The largest blocks of `2^n` replicas that begin at a multiple of `2^n`. Their sums are intermediate sums of a single process.
pub(super) fn blocks_of(replicas: Range<usize>) -> Vec<Range<usize>> {
    let Range { mut start, end } = replicas;
    let mut blocks = Vec::new();
    while start < end {
        let aligned = if start == 0 { u32::MAX } else { start.trailing_zeros() };
        let size = 1 << aligned.min((end - start).ilog2());
        blocks.push(start..start + size);
        start += size;
    }
    blocks
}

/// The exponent of the length of a block.
pub(super) fn level(block: &Range<usize>) -> u32 {
    block.len().trailing_zeros()
}
