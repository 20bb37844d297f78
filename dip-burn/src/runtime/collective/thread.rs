//! Sums over replicas that are threads of this process and, optionally, of other processes.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use burn::tensor::StreamId;
use burn::tensor::backend::Backend;

use super::process_sums::ProcessSums;
use super::reducer::{BucketSum, ReduceEvent, Reducer, ReplicaPart};
use super::{Collective, CollectiveFactory, RankReplicas, ReplicaGone};
use crate::model::to_device;
use crate::params::Bucket;
use crate::runtime::group::ProcessGrid;
use crate::runtime::transport::Transport;
use crate::runtime::worker::panic_text;

/// Connects replicas that are threads of one process or, over a transport, of several.
#[derive(Clone, Default)]
pub struct ThreadCollectives {
    others: Option<(Arc<dyn Transport>, ProcessGrid)>,
}

impl ThreadCollectives {
    /// Connects the replicas of all processes, which have the same layout of a rank. A message that does not fit the layout ends the
    /// run with an error that names its process.
    pub fn over(transport: Arc<dyn Transport>, grid: ProcessGrid) -> Self {
        Self { others: Some((transport, grid)) }
    }
}

impl<B: Backend> CollectiveFactory<B> for ThreadCollectives {
    fn connect(&self, replicas: RankReplicas<'_, B>) -> io::Result<Vec<Arc<dyn Collective<B>>>> {
        let RankReplicas { rank, devices, layout } = replicas;
        let others = self.others.as_ref().and_then(|(transport, grid)| {
            let device = devices.first().cloned().unwrap_or_default();
            ProcessSums::new(transport, grid, rank, device, layout)
        });
        let members = ThreadCollective::start(devices, others)?.into_iter();
        Ok(members.map(|member| Arc::new(member) as Arc<dyn Collective<B>>).collect())
    }
}

/// One replica of a rank, whose thread trains while another one sums.
struct ThreadCollective<B: Backend> {
    replica: usize,
    device: B::Device,
    /// Channel to the summing thread.
    events: Sender<ReduceEvent<B>>,
    sums: Mutex<SumQueue<B>>,
    /// Carries the parts of other processes, if there are any.
    transport: Option<Arc<dyn Transport>>,
    /// The summing thread. The last member waits for its end, because it may hold the transport, which must not outlive the run.
    _thread: Arc<ReduceThread>,
}

/// A summing thread, which ends when a member is gone.
struct ReduceThread(Option<JoinHandle<()>>);

impl Drop for ReduceThread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

/// Sums that have arrived.
struct SumQueue<B: Backend> {
    sums: Receiver<BucketSum<B>>,
    /// By bucket: sums that arrived before they were requested.
    early: HashMap<usize, Bucket<B>>,
}

impl<B: Backend> ThreadCollective<B> {
    fn start(devices: &[B::Device], others: Option<ProcessSums<B>>) -> io::Result<Vec<Self>> {
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        let (events, inbox) = channel();
        if let Some(others) = &others {
            // Deliveries after the end of the replicas are dropped.
            let events = events.clone();
            let hand_over = move |delivery| drop(events.send(ReduceEvent::Remote(delivery)));
            others.transport.listen(others.channel(), Box::new(hand_over));
        }
        let (outboxes, queues): (Vec<_>, Vec<_>) = devices.iter().map(|_| channel()).unzip();
        let transport = others.as_ref().map(|others| others.transport.clone());
        let of_thread = (devices.to_vec(), transport.clone());
        let stream = StreamId::current();
        let thread = std::thread::Builder::new().name("dip-reduce".into()).spawn(move || {
            let (devices, transport) = of_thread;
            let reducer = Reducer::new(outboxes, devices, others);
            let sums = || stream.executes(|| reducer.run(&inbox));
            // Tells the other processes before the replicas here notice that sums are missing.
            if let (Err(panic), Some(transport)) = (catch_unwind(AssertUnwindSafe(sums)), transport)
            {
                let what = format!("has failed to sum gradients: {}", panic_text(&*panic));
                transport.reject(transport.index(), &what);
            }
        })?;
        let thread = Arc::new(ReduceThread(Some(thread)));
        let member = |(replica, (device, sums)): (usize, (&B::Device, _))| Self {
            replica,
            device: device.clone(),
            events: events.clone(),
            sums: Mutex::new(SumQueue { sums, early: HashMap::new() }),
            transport: transport.clone(),
            _thread: thread.clone(),
        };
        Ok(devices.iter().zip(queues).enumerate().map(member).collect())
    }
}

impl<B: Backend> Collective<B> for ThreadCollective<B> {
    fn contribute(&self, bucket: usize, part: Bucket<B>) -> Result<(), ReplicaGone> {
        let part = ReplicaPart { replica: self.replica, bucket, tensors: part };
        self.events.send(ReduceEvent::Part(part)).map_err(|_| ReplicaGone)
    }

    fn sum(&self, bucket: usize) -> Result<Bucket<B>, ReplicaGone> {
        let mut inbox = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = loop {
            if let Some(sum) = inbox.early.remove(&bucket) {
                break sum;
            }
            let sum = match &self.transport {
                Some(transport) => transport.waiting(|| inbox.sums.recv()),
                None => inbox.sums.recv(),
            };
            let (other, sum) = sum.map_err(|_| ReplicaGone)?;
            inbox.early.insert(other, sum);
        };
        Ok(sum.into_iter().map(|x| x.map(|x| to_device(x, &self.device))).collect())
    }
}

impl<B: Backend> Drop for ThreadCollective<B> {
    fn drop(&mut self) {
        // Fails only if the thread has already ended because of another replica.
        let _ = self.events.send(ReduceEvent::Gone);
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Tensor;

    use super::*;

    fn group(replicas: usize) -> Vec<ThreadCollective<Flex>> {
        ThreadCollective::start(&vec![Default::default(); replicas], None).unwrap()
    }

    fn part(values: &[f32]) -> Bucket<Flex> {
        vec![Some(Tensor::from_floats(values, &Default::default())), None]
    }

    fn values(bucket: Bucket<Flex>) -> Vec<Option<Vec<f32>>> {
        bucket.into_iter().map(|x| x.map(|x| x.into_data().to_vec().unwrap())).collect()
    }

    #[test]
    fn sums_have_the_same_bits_in_any_order_of_arrival() {
        // In single precision 1 + 1e8 - 1e8 is 0 or 1, depending on the order.
        let parts = [[1.0, 0.1], [1e8, 0.2], [-1e8, 0.3]];
        let mut found = Vec::new();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let group = group(3);
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
        let group = group(2);
        group[1].contribute(0, part(&[3.0])).unwrap();
        group[0].contribute(0, vec![None, None]).unwrap();
        for member in &group {
            assert_eq!(values(member.sum(0).unwrap()), [Some(vec![3.0]), None]);
        }
    }

    #[test]
    fn a_replica_that_ends_does_not_leave_the_others_waiting() {
        let mut group = group(2);
        let gone = group.pop().unwrap();
        let left = group.pop().unwrap();
        left.contribute(0, part(&[1.0])).unwrap();
        let waiting = std::thread::spawn(move || left.sum(0).err());
        drop(gone);
        assert_eq!(waiting.join().unwrap(), Some(ReplicaGone));
    }
}
