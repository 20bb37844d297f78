//! Nodes on ports of this machine train like replicas of one process, and end together.

/// Nodes connect, refuse strangers, and notice a node that is gone.
mod meet;

/// Bytes that each node sends for a sum, and its time.
mod share;

/// Sums over nodes.
mod sums;

/// Whole runs.
mod train;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use burn::tensor::Tensor;
use dip_burn::params::Bucket;
use dip_burn::runtime::nodes::{NodeTransport, NodesConfig, WebSocketTransport};
use dip_burn::runtime::{Collective, CollectiveFactory, RankReplicas, ThreadCollectives};
use dip_core::RankId;

use crate::support::*;

/// Addresses with free ports, below the ports that the system gives to connections of other tests.
fn addresses(count: usize) -> Vec<String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 1000) as u16 * 20;
    let ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    let free = ports.filter(|&port| TcpListener::bind(("0.0.0.0", port)).is_ok());
    free.take(count).map(|port| format!("127.0.0.1:{port}")).collect()
}

/// Runs `node` for every node, on its own thread.
fn on_nodes<T: Send + 'static>(
    count: usize,
    node: impl Fn(Arc<dyn NodeTransport>) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let addresses = addresses(count);
    let start = |number| {
        let mut config = NodesConfig::new(addresses.clone(), number);
        (config.patience, config.silence) = (Duration::from_secs(60), Duration::from_secs(10));
        let node = node.clone();
        std::thread::spawn(move || node(Arc::new(WebSocketTransport::connect(&config).unwrap())))
    };
    let threads: Vec<JoinHandle<T>> = (0..count).map(start).collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

/// The only replica of rank 0 on a node, with buckets of `layout`.
fn member(transport: Arc<dyn NodeTransport>, layout: Vec<Vec<usize>>) -> Arc<dyn Collective<B>> {
    let devices = [Default::default()];
    let replicas = RankReplicas::new(RankId(0), &devices, layout);
    ThreadCollectives::over(transport).connect(replicas).unwrap().remove(0)
}

fn values(bucket: Bucket<B>) -> Vec<Option<Vec<f32>>> {
    bucket.into_iter().map(|x| x.map(|x| x.into_data().to_vec().unwrap())).collect()
}

fn part(values: &[f32]) -> Option<Tensor<B, 1>> {
    Some(Tensor::from_floats(values, &Default::default()))
}
