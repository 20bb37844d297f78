//! Replicas of a rank that are threads of one process, alone or beside those of other nodes.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::StreamId;
use burn::tensor::backend::Backend;

use super::across::Across;
use super::{Collective, Layout, ReplicaGone, sum_of};
use crate::model::to_device;
use crate::params::Bucket;
use crate::runtime::nodes::{Delivery, NodeTransport, STOPPED};
use crate::runtime::worker::panic_text;

/// The replicas of a rank as threads of one process, with a thread that sums for them; where there are other nodes, over all.
pub struct ThreadCollective<B: Backend> {
    replica: usize,
    device: B::Device,
    parts: Sender<Part<B>>,
    sums: Mutex<Inbox<B>>,
}

/// What the summing thread is sent.
enum Part<B: Backend> {
    Bucket {
        replica: usize,
        bucket: usize,
        part: Bucket<B>,
    },
    /// From another node.
    Remote(Delivery),
    /// A replica has ended.
    Gone,
}

/// Sums that have come; those of other buckets wait until they are asked for.
struct Inbox<B: Backend> {
    sums: Receiver<(usize, Bucket<B>)>,
    early: HashMap<usize, Bucket<B>>,
}

impl<B: Backend> ThreadCollective<B> {
    /// Connects one replica on each device.
    ///
    /// # Errors
    /// The system's, where the summing thread cannot be started.
    pub fn group(devices: &[B::Device]) -> std::io::Result<Vec<Self>> {
        Self::start(devices, None)
    }

    /// Connects one replica on each device with those of the same rank on other nodes, which have as many and the same layout;
    /// messages that do not fit it end the run with an error that names their node.
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub fn group_on_nodes(
        devices: &[B::Device],
        rank: usize,
        layout: Layout,
        transport: Arc<dyn NodeTransport>,
    ) -> std::io::Result<Vec<Self>> {
        if transport.count() < 2 {
            return Self::group(devices);
        }
        let device = devices.first().cloned().unwrap_or_default();
        Self::start(devices, Some(Across::new(transport, rank, device, layout)))
    }

    fn start(devices: &[B::Device], across: Option<Across<B>>) -> std::io::Result<Vec<Self>> {
        let (parts, inbox) = channel();
        if let Some(across) = &across {
            // What comes behind the end of the replicas is for nobody.
            let parts = parts.clone();
            let hand_over = move |delivery| drop(parts.send(Part::Remote(delivery)));
            across.transport.listen(across.channel(), Box::new(hand_over));
        }
        let mut outboxes = Vec::new();
        let mut members = Vec::new();
        for (replica, device) in devices.iter().enumerate() {
            let (outbox, sums) = channel();
            outboxes.push(outbox);
            let sums = Mutex::new(Inbox { sums, early: HashMap::new() });
            members.push(Self { replica, device: device.clone(), parts: parts.clone(), sums });
        }
        let devices = devices.to_vec();
        let stream = StreamId::current();
        std::thread::Builder::new().name("dip-reduce".into()).spawn(move || {
            let transport = across.as_ref().map(|across| across.transport.clone());
            let sums = || stream.executes(|| reduce::<B>(&inbox, &outboxes, &devices, across));
            // The other nodes are told, before the replicas here notice that there are no sums.
            if let (Err(panic), Some(nodes)) = (catch_unwind(AssertUnwindSafe(sums)), transport) {
                let what = format!("has failed to sum gradients: {}", panic_text(&*panic));
                nodes.reject(nodes.number(), &what);
            }
        })?;
        Ok(members)
    }
}

/// Sums every bucket as soon as its last part is there, until a replica ends.
fn reduce<B: Backend>(
    parts: &Receiver<Part<B>>,
    sums: &[Sender<(usize, Bucket<B>)>],
    devices: &[B::Device],
    mut across: Option<Across<B>>,
) {
    let mut waiting: HashMap<usize, Vec<Option<Bucket<B>>>> = HashMap::new();
    let mut stopped = None;
    while let Ok(part) = parts.recv() {
        let done = match (part, &mut across) {
            (Part::Bucket { replica, bucket, part }, across) => {
                if let (Some(node), Some(across)) = (stopped, &across) {
                    return across.transport.reject(node, STOPPED);
                }
                let slots = waiting.entry(bucket).or_insert_with(|| vec![None; sums.len()]);
                slots[replica] = Some(part);
                if slots.iter().any(Option::is_none) {
                    continue;
                }
                let parts = waiting.remove(&bucket).into_iter().flatten().flatten();
                // Devices take buckets in turn.
                let sum = sum_of(parts, &devices[bucket % devices.len()]);
                match across {
                    Some(across) => {
                        across.own(bucket, sum);
                        None
                    }
                    None => Some((bucket, sum)),
                }
            }
            (Part::Remote(Delivery::Message { from, bytes }), Some(across)) => {
                match across.received(from, bytes) {
                    Ok(done) => done,
                    Err(what) => return across.transport.reject(from, &what),
                }
            }
            // At the end of a run nodes leave while others still have what they need.
            (Part::Remote(Delivery::Left { from }), Some(across)) => {
                let has_failed = across.transport.failure().is_some();
                if has_failed || across.is_waiting() || !waiting.is_empty() {
                    return across.transport.reject(from, STOPPED);
                }
                stopped = Some(from);
                continue;
            }
            (Part::Remote(_) | Part::Gone, _) => return,
        };
        let Some((bucket, sum)) = done else { continue };
        for outbox in sums {
            // Whoever is gone says so itself.
            let _ = outbox.send((bucket, sum.clone()));
        }
    }
}

impl<B: Backend> Collective<B> for ThreadCollective<B> {
    fn contribute(&self, bucket: usize, part: Bucket<B>) -> Result<(), ReplicaGone> {
        let part = Part::Bucket { replica: self.replica, bucket, part };
        self.parts.send(part).map_err(|_| ReplicaGone)
    }

    fn sum(&self, bucket: usize) -> Result<Bucket<B>, ReplicaGone> {
        let mut inbox = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = loop {
            if let Some(sum) = inbox.early.remove(&bucket) {
                break sum;
            }
            let (other, sum) = inbox.sums.recv().map_err(|_| ReplicaGone)?;
            inbox.early.insert(other, sum);
        };
        Ok(sum.into_iter().map(|x| x.map(|x| to_device(x, &self.device))).collect())
    }
}

impl<B: Backend> Drop for ThreadCollective<B> {
    fn drop(&mut self) {
        // Where the thread has ended already, another replica was first.
        let _ = self.parts.send(Part::Gone);
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Tensor;

    use super::*;

    fn part(values: &[f32]) -> Bucket<Flex> {
        vec![Some(Tensor::from_floats(values, &Default::default())), None]
    }

    fn values(bucket: Bucket<Flex>) -> Vec<Option<Vec<f32>>> {
        bucket.into_iter().map(|x| x.map(|x| x.into_data().to_vec().unwrap())).collect()
    }

    #[test]
    fn sums_have_the_same_bits_whatever_the_order_of_arrival() {
        // In single precision 1 + 1e8 - 1e8 is 0 or 1, as the order has it.
        let parts = [[1.0, 0.1], [1e8, 0.2], [-1e8, 0.3]];
        let mut found = Vec::new();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let group = ThreadCollective::<Flex>::group(&[Default::default(); 3]).unwrap();
            for replica in order {
                group[replica].contribute(7, part(&parts[replica])).unwrap();
            }
            found.extend(group.iter().map(|member| values(member.sum(7).unwrap())));
        }
        let expected = vec![Some(vec![1.0f32 + 1e8 - 1e8, 0.1f32 + 0.2 + 0.3]), None];
        assert!(found.iter().all(|f| *f == expected), "{found:?}");
    }

    #[test]
    fn one_replica_that_has_a_tensor_hands_it_to_all() {
        let group = ThreadCollective::<Flex>::group(&[Default::default(); 2]).unwrap();
        group[1].contribute(0, part(&[3.0])).unwrap();
        group[0].contribute(0, vec![None, None]).unwrap();
        for member in &group {
            assert_eq!(values(member.sum(0).unwrap()), [Some(vec![3.0]), None]);
        }
    }

    #[test]
    fn a_replica_that_ends_does_not_leave_the_others_waiting() {
        let mut group = ThreadCollective::<Flex>::group(&[Default::default(); 2]).unwrap();
        let gone = group.pop().unwrap();
        let left = group.pop().unwrap();
        left.contribute(0, part(&[1.0])).unwrap();
        let waiting = std::thread::spawn(move || left.sum(0).err());
        drop(gone);
        assert_eq!(waiting.join().unwrap(), Some(ReplicaGone));
    }
}
