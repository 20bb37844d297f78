//! Links between the ranks of one replica, in this process and others.

mod channel;
mod device;
mod payload;
mod remote;

pub use channel::ChannelLink;
pub use device::DeviceLinks;

use std::io;

use burn::tensor::backend::Backend;
use dip_core::{Link, RankId};

use crate::stage::Payload;

/// One rank's end of the links of its replica.
pub type RankLink<B> = Box<dyn Link<Payload = Payload<B>> + Send>;

/// Makes the links of a replica.
pub trait LinkFactory<B: Backend>: Send + Sync {
    /// Links for one iteration or group of forwards, one for each rank of this process in order. A rank may send to any other rank of its replica. All
    /// processes with ranks of the replica call this equally often.
    ///
    /// # Errors
    /// An I/O error if the ranks cannot be connected; it ends the run.
    fn connect(&self, replica: &ReplicaRanks<'_, B>) -> io::Result<Vec<RankLink<B>>>;
}

/// The ranks of one replica.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReplicaRanks<'a, B: Backend> {
    /// Number of the replica, counted over all processes.
    pub replica: usize,
    /// Number of its ranks, on this process and others.
    pub ranks: usize,
    /// The ranks of this process in order, each with its device; payloads arrive there.
    pub hosted: &'a [(RankId, B::Device)],
}

impl<'a, B: Backend> ReplicaRanks<'a, B> {
    /// Replica `replica` of `ranks` ranks, of which this process has those in `hosted`.
    pub fn new(replica: usize, ranks: usize, hosted: &'a [(RankId, B::Device)]) -> Self {
        Self { replica, ranks, hosted }
    }
}
