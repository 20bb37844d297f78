//! The thread that sums the buckets of a rank while its replicas train.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender};

use burn::tensor::backend::Backend;

use super::process_sums::ProcessSums;
use super::sum_of;
use crate::params::Bucket;
use crate::runtime::transport::{Delivery, STOPPED};

/// A message to the summing thread.
pub(super) enum ReduceEvent<B: Backend> {
    /// One replica's part of a bucket.
    Part(ReplicaPart<B>),
    /// A message from another process, or its end.
    Remote(Delivery),
    /// A replica has ended.
    Gone,
}

/// One replica's part of a bucket.
pub(super) struct ReplicaPart<B: Backend> {
    pub replica: usize,
    pub bucket: usize,
    pub tensors: Bucket<B>,
}

/// The sum of a bucket, by its number.
pub(super) type BucketSum<B> = (usize, Bucket<B>);

/// Sums every bucket as soon as its last part has arrived, until a replica ends.
pub(super) struct Reducer<B: Backend> {
    /// Channel of sums to each replica of this process.
    sums: Vec<Sender<BucketSum<B>>>,
    /// Device of each replica of this process.
    devices: Vec<B::Device>,
    /// The other processes with replicas of the rank, if any.
    others: Option<ProcessSums<B>>,
    /// By bucket: the parts of the replicas that have arrived, until the bucket is complete.
    parts: HashMap<usize, Vec<Option<Bucket<B>>>>,
    /// A process that has left after its last message. A later part fails, because its sum would need that process.
    left: Option<usize>,
}

/// The reason why the thread stops.
enum End {
    ReplicaGone,
    /// A process has failed; this process reports it to the others.
    Fault {
        process: usize,
        what: String,
    },
}

impl<B: Backend> Reducer<B> {
    pub fn new(
        sums: Vec<Sender<BucketSum<B>>>,
        devices: Vec<B::Device>,
        others: Option<ProcessSums<B>>,
    ) -> Self {
        Self { sums, devices, others, parts: HashMap::new(), left: None }
    }

    pub fn run(mut self, events: &Receiver<ReduceEvent<B>>) {
        while let Ok(event) = events.recv() {
            match self.handle(event) {
                Ok(Some(sum)) => self.publish(&sum),
                Ok(None) => {}
                Err(End::ReplicaGone) => return,
                Err(End::Fault { process, what }) => return self.reject(process, &what),
            }
        }
    }

    /// Returns the sum that an event completes, if any.
    fn handle(&mut self, event: ReduceEvent<B>) -> Result<Option<BucketSum<B>>, End> {
        match event {
            ReduceEvent::Part(part) => self.take_part(part),
            ReduceEvent::Remote(Delivery::Message { from, bytes }) => {
                self.take_message(from, bytes)
            }
            ReduceEvent::Remote(Delivery::Left { from }) => {
                self.handle_departure(from).map(|()| None)
            }
            ReduceEvent::Gone => Err(End::ReplicaGone),
        }
    }

    fn take_part(&mut self, part: ReplicaPart<B>) -> Result<Option<BucketSum<B>>, End> {
        if let Some(process) = self.left {
            return Err(stopped(process));
        }
        let ReplicaPart { replica, bucket, tensors } = part;
        let replicas = self.devices.len();
        let parts = self.parts.entry(bucket).or_insert_with(|| vec![None; replicas]);
        parts[replica] = Some(tensors);
        if parts.iter().any(Option::is_none) {
            return Ok(None);
        }
        let mut parts = self.parts.remove(&bucket).into_iter().flatten().flatten();
        // Devices take buckets in turn.
        let device = &self.devices[bucket % replicas];
        let Some(others) = &mut self.others else {
            return Ok(Some((bucket, sum_of(parts, device))));
        };
        let of_block = |block: &Range<usize>| sum_of(parts.by_ref().take(block.len()), device);
        let blocks = others.own_blocks().iter().map(of_block).collect();
        others.contribute(bucket, blocks);
        Ok(None)
    }

    fn take_message(&mut self, from: usize, bytes: Vec<u8>) -> Result<Option<BucketSum<B>>, End> {
        let Some(others) = &mut self.others else { return Ok(None) };
        others.receive(from, bytes).map_err(|what| End::Fault { process: from, what })
    }

    /// A process may leave at the end of a run, once the others have everything that they need from it.
    fn handle_departure(&mut self, from: usize) -> Result<(), End> {
        let Some(others) = &self.others else { return Ok(()) };
        if !others.has_member(from) {
            return Ok(());
        }
        let has_failed = others.transport.failure().is_some();
        if has_failed || others.is_waiting() || !self.parts.is_empty() {
            return Err(stopped(from));
        }
        self.left = Some(from);
        Ok(())
    }

    fn publish(&self, sum: &BucketSum<B>) {
        for replica in &self.sums {
            // A replica that is gone reports its own error.
            let _ = replica.send(sum.clone());
        }
    }

    fn reject(&self, process: usize, what: &str) {
        if let Some(others) = &self.others {
            others.transport.reject(process, what);
        }
    }
}

fn stopped(process: usize) -> End {
    End::Fault { process, what: STOPPED.into() }
}
