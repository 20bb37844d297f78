//! Messages between the processes of a run, on one machine or several.
//!
//! ```text
//! process 0: Trainer --TransportGroup--> Transport <== messages ==> Transport <--TransportGroup-- Trainer: process 1
//!            ranks --Link, Collective-------^                           ^-------Link, Collective-- ranks
//! ```
//!
//! All processes take the same steps. Their common decisions go through [`TransportGroup`]; activations, gradients and tied weights
//! have their own channels, and flow while the ranks compute.

mod group;
#[cfg(feature = "mpi")]
mod mpi;
mod router;
pub(crate) mod tensors;

#[cfg(feature = "mpi")]
pub use self::mpi::MpiTransport;
pub use group::TransportGroup;
pub use router::Router;

use super::group::GroupError;

/// Carries messages between processes. Messages from one process to another arrive in order.
pub trait Transport: Send + Sync {
    /// The number of this process, from 0.
    fn index(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// The machine of a process.
    fn host(&self, process: usize) -> String;

    /// Sends a message to other processes; does not wait for them.
    fn send(&self, to: &[usize], channel: u32, bytes: Vec<u8>);

    /// Accepts messages of up to `most_bytes` on a channel; 16 MiB are accepted on all. Every process must call it before any
    /// process sends a longer message.
    fn allow(&self, channel: u32, most_bytes: usize);

    /// Hands the messages of a channel to `receiver`, starting with those that have already arrived.
    fn listen(&self, channel: u32, receiver: Receive);

    /// Ends the run, because `process`, this one or another, cannot continue.
    fn reject(&self, process: usize, what: &str);

    /// The first reason why the processes cannot continue together.
    fn failure(&self) -> Option<GroupError>;

    /// Notes that a part of this process begins to wait for a message, for transports that look at the network now and then.
    fn begin_wait(&self) {}

    /// Notes that a part of this process no longer waits.
    fn end_wait(&self) {}

    /// Tells the other processes that this one ends, and with which error. Returns once they know, or cannot be reached.
    fn leave(&self, error: Option<&str>);
}

impl dyn Transport + '_ {
    /// Waits for a message with `wait`.
    pub(crate) fn waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.begin_wait();
        let result = wait();
        self.end_wait();
        result
    }
}

/// Handles a delivery; must not wait.
pub type Receive = Box<dyn Fn(Delivery) + Send>;

/// A message or the end of another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A message.
    Message {
        /// The process that sent it.
        from: usize,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A process has ended, or the processes cannot continue together; nothing more comes from it.
    Left {
        /// The process.
        from: usize,
    },
}

/// The channels of a run.
pub(crate) mod channel {
    /// Common decisions.
    pub const GROUP: u32 = 0;
    /// Activations and their gradients, between ranks of one replica.
    pub const LINKS: u32 = 1;
    /// Gradients of tied weights, between ranks of one replica.
    pub const TIED: u32 = 2;
    /// Sums over the replicas of the first rank; the other ranks follow.
    pub const SUMS: u32 = 16;
}

/// The fault of a process that ends while others need it.
pub(crate) const STOPPED: &str = "has stopped before the end of its run";
