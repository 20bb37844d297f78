//! Chunks: consecutive layers of one module, forward and backward.

use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{Bytes, LayerStrategy};

use super::Gradients;
use super::block::cache::KeyValueCache;
use crate::batch::{Clip, Microbatch, Sound};
use crate::params::AnyModule;

/// A weight with two dimensions.
pub type Matrix<B> = Param<Tensor<B, 2>>;

/// Forward and backward of consecutive layers of a module. Every modality implements it.
///
/// The backward is written by hand instead of recorded by Burn's autodiff: one lock guards the graphs of the whole process, and
/// ranks would wait for each other's backwards. By hand, a stage keeps exactly the tensors that its memory strategy names.
pub trait ModelChunk<B: Backend>: Module<B> + 'static {
    /// The state that the backward needs.
    type Kept: Send + 'static;

    /// Runs a slice of the instances of a microbatch and keeps nothing.
    ///
    /// `inputs` are the output of the previous chunk (one tensor, `[tokens, hidden]`), or, in the first chunk of a module,
    /// outputs of the upstream modules, in the order of [`Slice::inputs`]. A chunk that ends in a loss returns `[1, 1]`: the sum
    /// of the losses of its tokens, not yet divided by the trained tokens of the batch.
    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2>;

    /// As [`forward`](Self::forward), with the tensors that its backward needs; each layer keeps them by its memory strategy.
    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, Self::Kept);

    /// Adds the weight gradients for the gradient `dy` of the output, and returns the gradients of the inputs.
    fn backward(
        &self,
        kept: Self::Kept,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>>;

    /// Bytes of `kept` on the device.
    fn kept_bytes(kept: &Self::Kept) -> u64;

    /// True if it ends in a loss.
    fn has_loss(&self) -> bool {
        false
    }

    /// As [`forward`](Self::forward) of a chunk that ends in a loss, for evaluations: without terms that only steer training, so
    /// that losses of different runs can be compared.
    fn evaluate(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        self.forward(inputs, on)
    }

    /// The predictions before the loss, of the tokens `rows` or of all; `None` for a chunk without a loss.
    fn predict(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        rows: Option<&[usize]>,
    ) -> Option<Tensor<B, 2>> {
        let _ = (inputs, on, rows);
        None
    }

    /// Runs the next part of sequences whose earlier parts `memory` knows: the output, or in a chunk with a loss the predictions of
    /// the tokens `rows` or of all. The memory is empty before the first part; later parts come without inputs from upstream
    /// modules. `None` if the chunk remembers nothing; such chunks run the first part as any other microbatch, and no later one.
    fn extend(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        rows: Option<&[usize]>,
        memory: &mut ChunkMemory<B>,
    ) -> Option<Tensor<B, 2>> {
        let _ = (inputs, on, rows, memory);
        None
    }

    /// The two ends of a module that share one weight.
    fn tied_ends(&self) -> TiedEnds<'_, B> {
        TiedEnds { table: None, head: None }
    }
}

/// What a chunk of a frozen tower sends in place of the gradient of its input, which nobody reads: one zero. The first chunk of a
/// module sends nothing.
pub(super) fn unread_gradients<B: Backend>(
    is_first: bool,
    like: &Tensor<B, 2>,
) -> Vec<Tensor<B, 2>> {
    if is_first { Vec::new() } else { vec![Tensor::zeros([1, 1], &like.device())] }
}

/// What a chunk knows of the earlier parts of the sequences of one microbatch.
#[derive(Debug, Clone)]
pub struct ChunkMemory<B: Backend> {
    /// Keys and values of their tokens.
    pub cache: KeyValueCache<B>,
    /// What the chunk keeps of the outputs of upstream modules.
    pub inputs: Vec<Tensor<B, 2>>,
}

impl<B: Backend> Default for ChunkMemory<B> {
    fn default() -> Self {
        Self { cache: KeyValueCache::default(), inputs: Vec::new() }
    }
}

/// The ends that a chunk holds of a module whose head is its token table.
#[derive(Debug, Clone, Copy)]
pub struct TiedEnds<'a, B: Backend> {
    /// The token table, `[vocab, hidden]`.
    pub table: Option<&'a Matrix<B>>,
    /// The head, `[hidden, vocab]`.
    pub head: Option<&'a Matrix<B>>,
}

/// Instances of one microbatch.
#[derive(Debug, Clone)]
pub struct Slice<'a> {
    /// The microbatch.
    pub microbatch: &'a Microbatch,
    /// Which of its instances.
    pub instances: Range<u32>,
    /// The content of each input from an upstream module.
    pub inputs: Vec<InputSlice>,
}

/// The instances of an upstream module in one input. The upstream module may be sliced differently from its consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSlice {
    /// The upstream module.
    pub module: Arc<str>,
    /// Its instances.
    pub instances: Range<u32>,
    /// The tokens of each instance in the packed sequence; empty for modules whose output has no place in it.
    pub places: Vec<Range<u32>>,
}

impl<'a> Slice<'a> {
    /// The clips, if the instances are clips.
    pub fn clips(&self) -> &'a [Clip] {
        &self.microbatch.clips[self.instances.start as usize..self.instances.end as usize]
    }

    /// The sounds, if the instances are sounds.
    pub fn sounds(&self) -> &'a [Sound] {
        &self.microbatch.sounds[self.instances.start as usize..self.instances.end as usize]
    }
}

/// The state that a chunk of any modality keeps between forward and backward.
pub struct KeptState {
    state: Box<dyn Any + Send>,
    bytes: Bytes,
}

impl KeptState {
    /// Its bytes on the device.
    pub fn bytes(&self) -> Bytes {
        self.bytes
    }
}

/// The object-safe form of [`ModelChunk`], for chunks of any modality. Every [`ModelChunk`] implements it.
pub trait AnyChunk<B: Backend>: AnyModule<B> + Send + Debug {
    /// As [`ModelChunk::forward`].
    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2>;

    /// As [`ModelChunk::forward_kept`].
    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, KeptState);

    /// As [`ModelChunk::backward`].
    fn backward(
        &self,
        kept: KeptState,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>>;

    /// As [`ModelChunk::has_loss`].
    fn has_loss(&self) -> bool;

    /// As [`ModelChunk::evaluate`].
    fn evaluate(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2>;

    /// As [`ModelChunk::predict`].
    fn predict(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        rows: Option<&[usize]>,
    ) -> Option<Tensor<B, 2>>;

    /// As [`ModelChunk::extend`].
    fn extend(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        rows: Option<&[usize]>,
        memory: &mut ChunkMemory<B>,
    ) -> Option<Tensor<B, 2>>;

    /// As [`ModelChunk::tied_ends`].
    fn tied_ends(&self) -> TiedEnds<'_, B>;

    /// A copy.
    fn boxed(&self) -> Box<dyn AnyChunk<B>>;
}

impl<B: Backend, C: ModelChunk<B>> AnyChunk<B> for C {
    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        ModelChunk::forward(self, inputs, on)
    }

    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, KeptState) {
        let (y, kept) = ModelChunk::forward_kept(self, inputs, on, strategies);
        let bytes = Bytes(C::kept_bytes(&kept));
        (y, KeptState { state: Box::new(kept), bytes })
    }

    fn backward(
        &self,
        kept: KeptState,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let kept = kept.state.downcast().expect("a stage gives back the state that the chunk kept");
        ModelChunk::backward(self, *kept, dy, on, gradients)
    }

    fn has_loss(&self) -> bool {
        ModelChunk::has_loss(self)
    }

    fn evaluate(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        ModelChunk::evaluate(self, inputs, on)
    }

    fn predict(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        rows: Option<&[usize]>,
    ) -> Option<Tensor<B, 2>> {
        ModelChunk::predict(self, inputs, on, rows)
    }

    fn extend(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        rows: Option<&[usize]>,
        memory: &mut ChunkMemory<B>,
    ) -> Option<Tensor<B, 2>> {
        ModelChunk::extend(self, inputs, on, rows, memory)
    }

    fn tied_ends(&self) -> TiedEnds<'_, B> {
        ModelChunk::tied_ends(self)
    }

    fn boxed(&self) -> Box<dyn AnyChunk<B>> {
        Box::new(self.clone())
    }
}

impl<B: Backend> Clone for Box<dyn AnyChunk<B>> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}
