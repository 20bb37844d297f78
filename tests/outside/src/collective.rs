//! A collective: replicas put their parts into a shared table, and the last replica adds them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

use dip::train::Backend;
use dip::train::params::Bucket;
use dip::train::runtime::{Collective, CollectiveFactory, RankReplicas, ReplicaGone};

use crate::uses::Uses;

pub struct Meetings(pub Uses);

impl<B: Backend> CollectiveFactory<B> for Meetings {
    fn connect(&self, replicas: RankReplicas<'_, B>) -> io::Result<Vec<Arc<dyn Collective<B>>>> {
        let count = replicas.devices.len();
        let table = Arc::new(Table { buckets: Mutex::default(), is_full: Condvar::new(), count });
        let member = |replica| -> Arc<dyn Collective<B>> {
            Arc::new(Member { table: table.clone(), replica, uses: self.0.clone() })
        };
        Ok((0..count).map(member).collect())
    }
}

struct Table<B: Backend> {
    buckets: Mutex<HashMap<usize, Parts<B>>>,
    is_full: Condvar,
    count: usize,
}

/// The parts of one bucket by replica, and how many replicas have taken the sum.
struct Parts<B: Backend> {
    parts: Vec<Option<Bucket<B>>>,
    taken: usize,
}

struct Member<B: Backend> {
    table: Arc<Table<B>>,
    replica: usize,
    uses: Uses,
}

impl<B: Backend> Collective<B> for Member<B> {
    fn contribute(&self, bucket: usize, part: Bucket<B>) -> Result<(), ReplicaGone> {
        self.uses.add("collective");
        let count = self.table.count;
        let mut buckets = self.table.buckets.lock().map_err(|_| ReplicaGone)?;
        let empty = || Parts { parts: vec![None; count], taken: 0 };
        buckets.entry(bucket).or_insert_with(empty).parts[self.replica] = Some(part);
        self.table.is_full.notify_all();
        Ok(())
    }

    fn sum(&self, bucket: usize) -> Result<Bucket<B>, ReplicaGone> {
        let mut buckets = self.table.buckets.lock().map_err(|_| ReplicaGone)?;
        loop {
            let is_full = |parts: &Parts<B>| parts.parts.iter().all(Option::is_some);
            match buckets.get_mut(&bucket).filter(|parts| is_full(parts)) {
                Some(parts) => {
                    // Every replica adds in the order of replicas, so that all sums have the same bits.
                    let sum = parts.parts.iter().flatten().cloned().reduce(added);
                    parts.taken += 1;
                    if parts.taken == self.table.count {
                        buckets.remove(&bucket);
                    }
                    return sum.ok_or(ReplicaGone);
                }
                None => buckets = self.table.is_full.wait(buckets).map_err(|_| ReplicaGone)?,
            }
        }
    }
}

fn added<B: Backend>(left: Bucket<B>, right: Bucket<B>) -> Bucket<B> {
    let add = |(x, y)| match (x, y) {
        (Some(x), Some(y)) => Some(x + y),
        (x, y) => x.or(y),
    };
    left.into_iter().zip(right).map(add).collect()
}
