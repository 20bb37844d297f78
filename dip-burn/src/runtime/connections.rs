//! The connections between the ranks of a run.

use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::collective::{CollectiveFactory, ThreadCollectives};
use super::group::{ProcessGroup, SingleProcess};
use super::link::{DeviceLinks, LinkFactory};
use super::nodes::NodeGroup;

/// The connections between the ranks of a replica, the replicas of a rank, and the processes of a run.
///
/// The default is one process whose ranks are threads.
#[derive(Clone)]
pub struct Connections<B: Backend> {
    /// The processes of the run.
    pub group: Arc<dyn ProcessGroup>,
    /// Links between the ranks of one replica.
    pub links: Arc<dyn LinkFactory<B>>,
    /// Sums over the replicas of one rank.
    pub collectives: Arc<dyn CollectiveFactory<B>>,
}

impl<B: Backend> Default for Connections<B> {
    fn default() -> Self {
        Self {
            group: Arc::new(SingleProcess),
            links: Arc::new(DeviceLinks),
            collectives: Arc::new(ThreadCollectives::default()),
        }
    }
}

impl<B: Backend> Connections<B> {
    /// One node of several: each runs whole replicas, and sums gradients with the others.
    pub fn on_nodes(nodes: Arc<NodeGroup>) -> Self {
        let collectives = Arc::new(ThreadCollectives::over(nodes.transport().clone()));
        Self { group: nodes, collectives, ..Self::default() }
    }
}
