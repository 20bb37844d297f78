//! Pipelined training of multimodal models on Burn.
//!
//! ```text
//! shards -> documents -> packed microbatches -> Batch + Plan -> rank threads (ChunkStage) -> optimiser step -> checkpoint
//! ```
//!
//! | trait | you give | it lets you |
//! |---|---|---|
//! | [`model::TrainableModality`], [`model::ModelChunk`] | forward and backward of some layers | train another modality |
//! | [`data::DataSource`] | documents of text and pictures, or captioned videos | train on your own data |
//! | [`data::PixelSource`], [`data::FrameSource`] | pixels of a picture, frames of a video | train on pictures and videos of any kind |
//! | [`data::PackingRule`] | the next document of a sequence | choose which documents share a sequence |
//! | [`dip_core::PlanSource`] | a plan for each batch | plan with anything |
//! | [`train::BatchLoader`] | batches with their metadata | train on your own batches |
//! | [`train::Evaluator`] | a loss, captions or samples | evaluate in your own way |
//! | [`train::MetricSink`] | what to do with a report | show or store the metrics of a run |
//! | [`runtime::LinkFactory`] | links between ranks | move activations over your own transport |
//! | [`runtime::CollectiveFactory`] | sums over replicas | reduce gradients in your own way |
//! | [`runtime::ProcessGroup`] | messages between processes | spread a run over processes |

pub mod backend;
mod batch;
pub mod checkpoint;
#[cfg(test)]
mod damage;
pub mod data;
mod floats;
pub mod inference;
mod kernels;
pub mod measure;
pub mod model;
pub mod params;
mod random;
pub mod runtime;
pub mod stage;
pub mod train;
mod uploads;
pub mod weights;

pub use batch::{
    Arrangement, Batch, Clip, ClipGrid, ClipSize, Features, Image, ImageLayout, ImagePlace,
    JoinedTiles, Microbatch, PositionRule, Prompt, PromptPiece, Sound, TileGrid, View, ViewGrid,
    next_position, text_positions,
};
pub use burn::tensor::backend::Backend;

/// The Rust of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
