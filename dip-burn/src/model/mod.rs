//! The modules that are trained, generic over Burn's `Backend`, cut into chunks of consecutive layers.
//!
//! | file | holds |
//! |---|---|
//! | `vit` | vision encoder in the Qwen2-VL manner: patch embedding, 2D rotary positions, spatial-merge adapter |
//! | `decoder` | Llama and Qwen2 type decoder: grouped-query attention, rotary positions, SwiGLU, untied head with its loss |
//! | `attention`, `core`, `rotary`, `feed_forward` | what their layers share |
//! | `init` | weights by name: any partition starts from the same ones |
//! | `whole` | the whole model on one device: evaluation, captions, and the oracle of the pipelined gradients |

pub mod attention;
pub mod core;
pub mod decoder;
pub mod feed_forward;
mod init;
pub mod rotary;
pub mod vit;
mod whole;

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use thiserror::Error;

use crate::batch::Microbatch;

pub use decoder::DecoderChunk;
pub use init::Init;
pub use vit::VitChunk;
pub(crate) use whole::output_width;
pub use whole::{Prompt, WholeModel};

/// Forward of one model chunk: what a new modality implements.
pub trait Chunk<B: Backend> {
    /// Runs a slice of the instances of `microbatch`.
    ///
    /// `inputs` are the outputs of the chunk before (one tensor, `[tokens, hidden]`), or, in the first chunk of a module,
    /// those of the upstream modules in the order of their instances. A chunk that ends in a loss gives `[1, 1]`: the sum of
    /// the cross-entropies, not yet divided by the trained tokens of the batch.
    fn forward(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        microbatch: &Microbatch,
        slice: Range<u32>,
    ) -> Tensor<B, 2>;

    /// Whether it ends in a loss.
    fn has_loss(&self) -> bool {
        false
    }
}

/// A model that cannot be built.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ModelError {
    /// A module kind has no trainable implementation.
    #[error(
        "module {module:?} is of kind {kind}, which cannot be trained yet; plan and emulate it, or use vit and decoder modules"
    )]
    Kind {
        /// The module.
        module: String,
        /// Its kind.
        kind: &'static str,
    },
    /// A field does not fit the implementation.
    #[error("module {module:?}: {field} is {value}, but must be {limit}; change the model TOML")]
    Field {
        /// The module.
        module: String,
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        limit: String,
    },
}
