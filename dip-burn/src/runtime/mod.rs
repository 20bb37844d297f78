//! The pipelined runtime: one worker thread per rank runs the compiled action list of a plan (paper section 4).
//!
//! ```text
//! Pipeline (coordinator) --commands--> Worker (rank thread: chunks, optimiser, compute pool) --Link--> other ranks
//!        |               <--replies---                          --Collective--> the same rank of the other replicas
//!   ProcessGroup
//!        |
//! Pipeline of another process
//! ```
//!
//! The coordinator of a process drives the ranks that it hosts, as the [`ProcessGrid`] says. Links and collectives reach the other
//! ranks over a [`Transport`](transport::Transport).

mod chunks;
mod collective;
mod connections;
mod error;
mod forward;
mod group;
mod import;
mod init;
mod link;
mod optimizer;
mod pipeline;
mod replica;
mod shard;
mod tied;
pub mod transport;
mod worker;

pub use collective::{
    Collective, CollectiveFactory, Layout, RankReplicas, ReplicaGone, ThreadCollectives,
};
pub use connections::{Connections, Processes};
pub use error::PipelineError;
pub use group::{
    GroupError, LinkTime, Network, Position, ProcessGrid, ProcessGroup, ProcessPlacement,
    SingleProcess,
};
pub use import::ImportError;
pub use init::PipelineInit;
pub use link::{ChannelLink, DeviceLinks, LinkFactory, RankLink, ReplicaRanks};
pub(crate) use optimizer::Optimizer;
pub use optimizer::{Algorithm, OptimizerConfig, ParameterGroup, RateSchedule, StateError};
pub use pipeline::{
    BatchExecutor, ForwardItem, ForwardPipeline, Pipeline, ReplicaWork, StepReport, Update,
};
pub use worker::TensorKind;
