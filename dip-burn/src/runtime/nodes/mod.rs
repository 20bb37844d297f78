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

/// Carries messages between nodes. Messages from one node to another arrive in order.
pub trait NodeTransport: Send + Sync {
    /// The number of this node, from 0.
    fn number(&self) -> usize;

    /// Number of nodes.
    fn count(&self) -> usize;

    /// Address of a node, for error messages.
    fn address(&self, node: usize) -> String;

    /// Sends a message to other nodes; does not wait for them.
    fn send(&self, to: &[usize], channel: u32, bytes: Vec<u8>);

    /// Accepts messages of up to `most_bytes` on a channel; 16 MiB are accepted on all. Every node must call it before any node
    /// sends a longer message.
    fn allow(&self, channel: u32, most_bytes: usize);

    /// Hands the messages of a channel to `receiver`, starting with those that have already arrived.
    fn listen(&self, channel: u32, receiver: Receive);

    /// Ends the run, because `node`, this one or another, cannot continue.
    fn reject(&self, node: usize, what: &str);

    /// The first reason why the nodes cannot continue together.
    fn failure(&self) -> Option<GroupError>;

    /// Tells the other nodes that this one ends, and with which error. Returns once they know, or cannot be reached.
    fn leave(&self, error: Option<&str>);
}

/// Handles a delivery; must not wait.
pub type Receive = Box<dyn Fn(Delivery) + Send>;

/// A message or the end of another node.
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

/// The fault of a node that ends while others need it.
pub(crate) const STOPPED: &str = "has stopped before the end of its run";
