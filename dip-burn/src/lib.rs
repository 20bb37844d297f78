//! Pipelined training of multimodal models on Burn.
//!
//! | trait | you give | it lets you |
//! |---|---|---|
//! | [`model::Chunk`] | the forward of some layers | train another modality |

pub mod batch;
pub mod model;
pub mod params;
pub mod stage;

pub use batch::{Batch, Image, Microbatch};
