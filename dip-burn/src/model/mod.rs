//! The modules that are trained, generic over Burn's `Backend`, split into chunks of consecutive layers.
//!
//! | place | holds |
//! |---|---|
//! | `vit` | vision encoder: patch embedding, layers, adapter; 2D rotary positions, or learned positions as in CLIP and SigLIP |
//! | `audio` | audio encoder of the Whisper type: convolutions over mel frames, layers, adapter |
//! | `decoder` | decoder of the Llama and Qwen2 type: grouped-query attention, rotary positions, SwiGLU, head with its loss |
//! | `t5` | text encoder of the T5 type: attention in both directions, learned distances |
//! | `dit` | diffusion transformer of the MovieGen type or of Wan: packed clips, adaptive norms, cross attention, flow-matching loss |
//! | `chunk` | the trait of chunks: forward and backward of consecutive layers |
//! | `modalities` | the trait of modalities, and their registry |
//! | `probe` | the microbatches that modules are measured on |
//! | `block` | shared parts of layers: attention, feed-forward network, norms, linear layers |
//! | `offload` | tensors in host memory: activations that wait there, and tensors on their way to another device |
//! | `gradients` | sums of weight gradients |
//! | `precision` | the element type of the layers |
//! | `init` | initial weights, drawn by parameter name, so that they do not depend on the partition |
//! | `choice` | the next token from logits and settings |
//! | `whole` | the whole model on one device: the oracle of tests |

pub mod audio;
pub mod block;
mod choice;
mod chunk;
pub mod decoder;
pub mod dit;
mod gradients;
mod init;
mod modalities;
mod offload;
mod precision;
mod probe;
pub mod t5;
pub mod vit;
mod whole;

use std::fmt::Display;

use dip_core::{FieldError, ModuleSpec};
use thiserror::Error;

use crate::weights::{Weights, WeightsError};

pub(crate) use crate::kernels::{cast, to_f32};
pub use audio::AudioChunk;
pub use choice::{Continuation, TokenChoice};
pub use chunk::{
    AnyChunk, ChunkMemory, InputSlice, KeptState, Matrix, ModelChunk, Slice, TiedEnds,
};
pub use decoder::DecoderChunk;
pub use dit::DitChunk;
pub use gradients::{Deferred, Gradients, bytes_of};
pub use init::Init;
pub(crate) use modalities::Upstream;
pub use modalities::{ChunkSpec, Modalities, TrainableModality};
pub(crate) use offload::{HostCopy, to_device};
pub use precision::Precision;
pub use probe::{KeptGrowth, ProbeImages, ProbeInput, ProbeSpec};
pub use t5::T5Chunk;
pub use vit::VitChunk;
pub use whole::WholeModel;

/// The weights that a model starts from.
#[derive(Debug, Clone, Copy)]
pub struct InitialWeights<'a> {
    /// Seed of the weights that are drawn.
    pub seed: u64,
    /// The files that weights are read from. Without them, and for adapters, weights are drawn.
    pub weights: Option<&'a Weights>,
}

impl From<u64> for InitialWeights<'_> {
    fn from(seed: u64) -> Self {
        Self { seed, weights: None }
    }
}

/// A model that cannot be built.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A module kind has no trainable implementation.
    #[error(
        "module {module:?} is of kind {kind}, which cannot be trained; plan and emulate it, use one of {trainable}, or add it to the modalities in Rust"
    )]
    Kind {
        /// The module.
        module: String,
        /// Its kind.
        kind: String,
        /// The kinds that can be trained.
        trainable: String,
    },
    /// The device does not support the precision.
    #[error("the device has no {precision} ({backend}); train with precision = \"f32\"")]
    Precision {
        /// The precision.
        precision: &'static str,
        /// Name of the backend.
        backend: String,
    },
    /// Weights cannot be read.
    #[error(transparent)]
    Weights(#[from] Box<WeightsError>),
    /// A field does not fit the implementation.
    #[error(transparent)]
    Field(#[from] FieldError),
}

impl ModelError {
    /// A field of a module whose value the implementation does not support.
    pub fn field(module: &ModuleSpec, field: &str, value: impl Display, limit: &str) -> Self {
        Self::Field(FieldError::new(module.path(field), value, limit, "change the model TOML"))
    }
}
