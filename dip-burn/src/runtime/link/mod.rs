//! Links between the ranks of one replica.

mod channel;
mod device;

pub use channel::ChannelLink;
pub use device::DeviceLinks;

use std::io;

use burn::tensor::backend::Backend;
use dip_core::Link;

use crate::stage::Payload;

/// One rank's end of the links of its replica.
pub type RankLink<B> = Box<dyn Link<Payload = Payload<B>> + Send>;

/// Makes the links of a replica.
pub trait LinkFactory<B: Backend>: Send + Sync {
    /// Links for one iteration, one for each rank in order. A rank may send to any other.
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
    /// Device of each rank; payloads arrive there.
    pub devices: &'a [B::Device],
}

impl<'a, B: Backend> ReplicaRanks<'a, B> {
    /// The ranks of replica `replica`, each on its device.
    pub fn new(replica: usize, devices: &'a [B::Device]) -> Self {
        Self { replica, devices }
    }
}
