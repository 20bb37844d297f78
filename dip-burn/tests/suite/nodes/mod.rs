//! Nodes on ports of this machine train like replicas of one process, and end together.

/// Nodes find one another, refuse strangers, and notice who is gone.
mod meet;

/// What each node sends for a sum, and how long it takes.
mod share;

/// Sums over nodes.
mod sums;

/// Whole runs.
mod train;

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use burn::tensor::Tensor;
use dip_burn::runtime::Bucket;
use dip_burn::runtime::nodes::{NodeTransport, NodesConfig, WebSocketTransport};

use crate::support::*;

/// Free ports of this machine, for a node each.
fn addresses(count: usize) -> Vec<String> {
    let open = |_| TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners: Vec<_> = (0..count).map(open).collect();
    listeners.iter().map(|l| format!("127.0.0.1:{}", l.local_addr().unwrap().port())).collect()
}

/// Runs `node` for every node on a thread of its own.
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

fn values(bucket: Bucket<B>) -> Vec<Option<Vec<f32>>> {
    bucket.into_iter().map(|x| x.map(|x| x.into_data().to_vec().unwrap())).collect()
}

fn part(values: &[f32]) -> Option<Tensor<B, 1>> {
    Some(Tensor::from_floats(values, &Default::default()))
}
