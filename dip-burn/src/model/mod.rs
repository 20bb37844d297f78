//! The modules that are trained, generic over Burn's `Backend`, cut into chunks of consecutive layers.
//!
//! | place | holds |
//! |---|---|
//! | `vit` | vision encoder: patch embedding, layers, adapter; 2D rotary positions, or learned ones as in CLIP and SigLIP |
//! | `decoder` | decoder of the Llama and Qwen2 type: grouped-query attention, rotary positions, SwiGLU, head with its loss |
//! | `dit` | diffusion transformer of the MovieGen type: packed clips, adaptive norms, cross attention, flow-matching loss |
//! | `block` | what their layers share: attention, feed-forward network, norms, linear layers |
//! | `offload` | tensors in host memory: activations that wait there, and tensors on their way to another device |
//! | `gradients` | sums of weight gradients |
//! | `precision` | the element type of the layers |
//! | `init` | weights by name: any partition starts from the same ones |
//! | `sampler` | clips from noise: Euler steps with guidance |
//! | `whole` | the whole model on one device: evaluation, captions, and the oracle of the pipelined gradients |

pub mod block;
pub mod decoder;
pub mod dit;
mod gradients;
mod init;
mod offload;
mod precision;
pub mod sampler;
pub mod vit;
mod whole;

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::LayerStrategy;
use thiserror::Error;

use crate::batch::{Clip, Microbatch};
use crate::weights::{Weights, WeightsError};

pub use decoder::DecoderChunk;
pub use dit::DitChunk;
pub use gradients::{Deferred, Gradients};
pub use init::Init;
pub(crate) use offload::{HostCopy, to_device};
pub use precision::Precision;
pub(crate) use precision::{cast, to_f32};
pub use vit::VitChunk;
pub use whole::{Prompt, WholeModel};
pub(crate) use whole::{image_side, output_width};

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

/// What the weights of a model are at first.
#[derive(Debug, Clone, Copy)]
pub struct InitialWeights<'a> {
    /// Seed of all that is drawn.
    pub seed: u64,
    /// Where weights are read from; they are drawn where it is absent, and adapters always are.
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
        "module {module:?} is of kind {kind}, which cannot be trained yet; plan and emulate it, or use vit, decoder and dit modules"
    )]
    Kind {
        /// The module.
        module: String,
        /// Its kind.
        kind: &'static str,
    },
    /// The device has no such numbers.
    #[error("the device has no {precision} ({backend}); train with precision = \"f32\"")]
    Precision {
        /// The precision.
        precision: &'static str,
        /// What computes.
        backend: String,
    },
    /// Weights cannot be read.
    #[error(transparent)]
    Weights(#[from] Box<WeightsError>),
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
