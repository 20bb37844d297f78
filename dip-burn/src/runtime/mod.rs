//! The pipelined runtime: one worker thread a rank runs the compiled action list of a plan (paper section 4).
//!
//! ```text
//! Pipeline (coordinator) --commands--> Worker (rank thread: chunks, optimiser, compute pool) --ChannelLink--> other ranks
//!                        <--replies---
//! ```

mod link;
mod optimizer;
mod pipeline;
mod tied;
mod worker;

pub use link::ChannelLink;
pub use pipeline::{OnBatch, Pipeline, PipelineError, PipelineInit, StepReport, Update};
pub use worker::Export;
