//! The pipelined runtime: one worker thread per rank runs the compiled action list of a plan (paper section 4).
//!
//! ```text
//! Pipeline (coordinator) --commands--> Worker (rank thread: chunks, optimiser, compute pool) --ChannelLink--> other ranks
//!                        <--replies---                          --Collective--> the same rank of the other replicas
//! ```

mod chunks;
mod collective;
mod connections;
mod error;
mod forward;
mod group;
mod import;
mod init;
mod link;
pub mod nodes;
mod optimizer;
mod pipeline;
mod replica;
mod shard;
mod tied;
mod worker;

pub use collective::{
    Collective, CollectiveFactory, Layout, RankReplicas, ReplicaGone, ThreadCollectives,
};
pub use connections::Connections;
pub use error::PipelineError;
pub use group::{GroupError, ProcessGroup, SingleProcess};
pub use import::ImportError;
pub use init::PipelineInit;
pub use link::{ChannelLink, DeviceLinks, LinkFactory, RankLink, ReplicaRanks};
pub(crate) use optimizer::Optimizer;
pub use optimizer::{Algorithm, OptimizerConfig, ParameterGroup, RateSchedule, StateError};
pub use pipeline::{
    BatchExecutor, ForwardItem, ForwardPipeline, Pipeline, ReplicaWork, StepReport, Update,
};
pub use worker::TensorKind;
