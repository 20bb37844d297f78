//! Processes train like the threads of one, and end together. Here they are threads of the test, connected by memory.

/// A transport within one process.
mod memory;

/// Pipelines spread over processes.
mod pipelines;

/// Bytes that each process sends for a sum, and its time.
mod share;

/// Sums over processes.
mod sums;

/// Whole runs.
mod train;

use std::sync::Arc;
use std::thread::JoinHandle;

use burn::tensor::Tensor;
use dip_burn::params::Bucket;
use dip_burn::runtime::transport::Transport;
use dip_burn::runtime::{
    Collective, CollectiveFactory, ProcessGrid, ProcessPlacement, RankReplicas, ThreadCollectives,
};
use dip_core::RankId;

use crate::support::*;
use memory::Memory;

/// Runs `process` for every process, on its own thread.
fn on_processes<T: Send + 'static>(
    count: usize,
    process: impl Fn(Arc<dyn Transport>) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let start = |transport: Memory| {
        let process = process.clone();
        std::thread::spawn(move || process(Arc::new(transport)))
    };
    let threads: Vec<JoinHandle<T>> = Memory::connect(count).into_iter().map(start).collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

/// One replica of `ranks` ranks on each of `processes` processes.
fn one_replica_each(ranks: usize, processes: usize) -> ProcessGrid {
    ProcessGrid::new(ranks, processes, processes, ProcessPlacement::RanksFirst).unwrap()
}

/// The only replica of rank 0 on a process, with buckets of `layout`.
fn member(transport: Arc<dyn Transport>, layout: Vec<Vec<usize>>) -> Arc<dyn Collective<B>> {
    let devices = [Default::default()];
    let replicas = RankReplicas::new(RankId(0), &devices, layout);
    let grid = one_replica_each(1, transport.size());
    ThreadCollectives::over(transport, grid).connect(replicas).unwrap().remove(0)
}

fn values(bucket: Bucket<B>) -> Vec<Option<Vec<f32>>> {
    bucket.into_iter().map(|x| x.map(|x| x.into_data().to_vec().unwrap())).collect()
}

fn part(values: &[f32]) -> Option<Tensor<B, 1>> {
    Some(Tensor::from_floats(values, &Default::default()))
}
