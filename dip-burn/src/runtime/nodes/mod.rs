//! Nodes: the processes of a run, on one machine or several, connected by messages. Each has its own replicas of the pipeline.
//!
//! ```text
//! node 0: Trainer --NodeGroup--> NodeTransport <== messages ==> NodeTransport <--NodeGroup-- Trainer: node 1
//!         ranks --Collective-------^                                       ^-------Collective-- ranks
//! ```
//!
//! All nodes take the same steps. Their common decisions go through [`NodeGroup`]; the gradients of each rank have their own
//! channel, and flow while the trainer computes.

#[cfg(feature = "nodes")]
mod config;
mod group;
#[cfg(feature = "nodes")]
mod inbox;
#[cfg(feature = "nodes")]
mod websocket;
#[cfg(feature = "nodes")]
mod wire;

#[cfg(feature = "nodes")]
pub use config::NodesConfig;
pub use group::NodeGroup;
#[cfg(feature = "nodes")]
pub use websocket::WebSocketTransport;

use super::group::GroupError;

/// Carries messages between nodes, in order from each node to each other.
pub trait NodeTransport: Send + Sync {
    /// The number of this node, from 0.
    fn number(&self) -> usize;

    /// How many nodes there are.
    fn count(&self) -> usize;

    /// Where a node is, as errors name it.
    fn address(&self, node: usize) -> String;

    /// Sends a message to other nodes, without waiting for them.
    fn send(&self, to: &[usize], channel: u32, bytes: Vec<u8>);

    /// Takes messages of up to `most_bytes` on a channel, where they are longer than the 16 MiB that are taken on all. All nodes
    /// do so before one of them sends such a message.
    fn allow(&self, channel: u32, most_bytes: usize);

    /// Hands what comes on a channel to `receiver`, what has come already first.
    fn listen(&self, channel: u32, receiver: Receive);

    /// Gives up: `node`, another one or this one, cannot go on.
    fn reject(&self, node: usize, what: &str);

    /// Why the nodes cannot go on together; the first cause.
    fn failure(&self) -> Option<GroupError>;

    /// Tells the others that this node ends, and why where that is an error; returns when they have been told, or cannot be.
    fn leave(&self, error: Option<&str>);
}

/// What is done with a delivery; must not wait for anything.
pub type Receive = Box<dyn Fn(Delivery) + Send>;

/// What comes from another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A message.
    Message {
        /// The node that sent it.
        from: usize,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A node has ended; nothing more comes from it.
    Left {
        /// The node.
        from: usize,
    },
}

/// What is wrong with a node that ends while others need it.
pub(crate) const STOPPED: &str = "has stopped before the end of its run";
