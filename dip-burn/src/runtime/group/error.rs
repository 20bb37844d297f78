//! Errors of a group of processes.

use thiserror::Error;

/// Processes, called nodes in messages, that cannot start or continue together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A node no longer answers.
    #[error(
        "node {node} ({address}) {what}; its own output may say why. Start all nodes again with --resume"
    )]
    Gone {
        /// The node.
        node: usize,
        /// Its address.
        address: String,
        /// The reason.
        what: String,
    },
    /// A node was started for another run.
    #[error("node {node} differs from this node in {what}; {remedy}")]
    Differs {
        /// The node.
        node: usize,
        /// What differs.
        what: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// A node does not accept this one.
    #[error("node {node} ({address}) refuses this node: {what}")]
    Refused {
        /// The node.
        node: usize,
        /// Its address.
        address: String,
        /// Its reason, with a remedy.
        what: String,
    },
    /// The nodes cannot be started.
    #[error("{field} is {value}, but {limit}; {remedy}")]
    Start {
        /// The argument.
        field: &'static str,
        /// Its value.
        value: String,
        /// Its limit.
        limit: String,
        /// The remedy.
        remedy: &'static str,
    },
}
