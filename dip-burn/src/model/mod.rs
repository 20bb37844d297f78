//! The modules that are trained, generic over Burn's `Backend`, cut into chunks of consecutive layers.
//!
//! | file | holds |
//! |---|---|
//! | `vit` | vision encoder in the Qwen2-VL manner: patch embedding, 2D rotary positions, spatial-merge adapter |
//! | `decoder` | Llama and Qwen2 type decoder: grouped-query attention, rotary positions, SwiGLU, untied head with its loss |
//! | `dit` | diffusion transformer in the MovieGen manner: packed clips, adaptive norms, cross attention, flow-matching loss |
//! | `layer`, `attention`, `core`, `rotary`, `feed_forward`, `norm` | what their layers share, forward and backward |
//! | `gradients` | sums of weight gradients |
//! | `precision` | what the layers compute in |
//! | `init` | weights by name: any partition starts from the same ones |
//! | `sampler` | clips from noise: Euler steps with guidance |
//! | `whole` | the whole model on one device: evaluation, captions, and the oracle of the pipelined gradients |

pub mod attention;
pub mod core;
pub mod decoder;
pub mod dit;
pub mod feed_forward;
mod gradients;
mod init;
pub mod layer;
mod norm;
mod precision;
pub mod rotary;
pub mod sampler;
pub mod vit;
mod whole;

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::LayerStrategy;
use thiserror::Error;

use crate::batch::{Clip, Microbatch};

pub use decoder::DecoderChunk;
pub use dit::DitChunk;
pub use gradients::{Deferred, Gradients};
pub use init::Init;
pub use precision::Precision;
pub(crate) use precision::{cast, to_f32};
pub use vit::VitChunk;
pub(crate) use whole::output_width;
pub use whole::{Prompt, WholeModel};

/// Forward and backward of one model chunk: what a new modality implements.
///
/// The backward is written out instead of recorded by Burn's autodiff, whose graphs live behind one lock for the whole process:
/// ranks would wait for each other's backwards. Written out, a stage holds exactly what its memory strategy says.
pub trait Chunk<B: Backend> {
    /// What the backward needs.
    type Kept: Send;

    /// Runs a slice of the instances of `microbatch` and keeps nothing.
    ///
    /// `inputs` are the outputs of the chunk before (one tensor, `[tokens, hidden]`), or, in the first chunk of a module,
    /// those of the upstream modules in the order of their instances. A chunk that ends in a loss gives `[1, 1]`: the sum of
    /// the losses of the tokens, not yet divided by the trained tokens of the batch.
    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: Slice<'_>) -> Tensor<B, 2>;

    /// The same, and what its backward needs; each layer keeps what its strategy says.
    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, Self::Kept);

    /// Adds the weight gradients for the gradient `dy` of the output, and returns those of the inputs.
    fn backward(
        &self,
        kept: Self::Kept,
        dy: Tensor<B, 2>,
        on: Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>>;

    /// Bytes of what is kept.
    fn kept_bytes(kept: &Self::Kept) -> u64;

    /// Whether it ends in a loss.
    fn has_loss(&self) -> bool {
        false
    }
}

/// Instances of one microbatch.
#[derive(Debug, Clone)]
pub struct Slice<'a> {
    /// The microbatch.
    pub microbatch: &'a Microbatch,
    /// Which of its instances.
    pub instances: Range<u32>,
    /// The instances that each input from an upstream module holds: its slices need not be those of this module.
    pub inputs: Vec<Range<u32>>,
}

impl<'a> Slice<'a> {
    /// The clips, where the instances are clips.
    pub fn clips(&self) -> &'a [Clip] {
        &self.microbatch.clips[self.instances.start as usize..self.instances.end as usize]
    }
}

/// A model that cannot be built.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ModelError {
    /// A module kind has no trainable implementation.
    #[error(
        "module {module:?} is of kind {kind}, which cannot be trained yet; plan and emulate it, or use vit, decoder and dit modules"
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
