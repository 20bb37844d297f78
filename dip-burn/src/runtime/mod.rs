//! The pipelined runtime: one worker thread a rank runs the compiled action list of a plan (paper section 4).
//!
//! ```text
//! Pipeline (coordinator) --commands--> Worker (rank thread: chunks, optimiser, compute pool) --ChannelLink--> other ranks
//!                        <--replies---                          --Collective--> the same rank of the other replicas
//! ```

mod between_devices;
mod collective;
mod error;
mod groups;
mod link;
pub mod nodes;
mod on_batch;
mod optimizer;
mod pipeline;
mod replica;
mod shard;
mod tied;
mod worker;

pub use collective::{Collective, Layout, ReplicaGone, ThreadCollective};
pub use error::PipelineError;
pub use link::ChannelLink;
pub use on_batch::OnBatch;
pub(crate) use optimizer::Optimizer;
pub use optimizer::{Algorithm, OptimizerConfig, RateSchedule};
pub use pipeline::{Pipeline, PipelineInit, ReplicaWork, StepReport, Update};
pub use worker::Export;
