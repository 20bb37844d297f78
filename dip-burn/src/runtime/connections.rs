//! The connections between the ranks of a run.

use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::collective::{CollectiveFactory, ThreadCollectives};
use super::group::{ProcessGrid, ProcessGroup, SingleProcess};
use super::link::{DeviceLinks, LinkFactory};
use super::transport::{Transport, TransportGroup};

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
    /// The place of every rank, if there are several processes.
    pub processes: Option<Processes>,
}

/// The processes of a run.
#[derive(Clone)]
pub struct Processes {
    /// Carries messages between them.
    pub transport: Arc<dyn Transport>,
    /// Which of them hosts which ranks.
    pub grid: ProcessGrid,
}

impl<B: Backend> Default for Connections<B> {
    fn default() -> Self {
        Self {
            group: Arc::new(SingleProcess),
            links: Arc::new(DeviceLinks::default()),
            collectives: Arc::new(ThreadCollectives::default()),
            processes: None,
        }
    }
}

impl<B: Backend> Connections<B> {
    /// One process of several, each with the ranks that the grid gives it. `group` has been made from the same transport.
    pub fn over(group: Arc<TransportGroup>, processes: Processes) -> Self {
        let Processes { transport, grid } = &processes;
        Self {
            group,
            links: Arc::new(DeviceLinks::over(transport.clone(), *grid)),
            collectives: Arc::new(ThreadCollectives::over(transport.clone(), *grid)),
            processes: Some(processes),
        }
    }
}
