//! Runs layers under memory strategies; the pre-norm transformer layer of encoders and decoders.
//!
//! Shape legend: r rows, m width.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::LayerStrategy;

use super::attention::{Attention, AttentionGiven, AttentionKept};
use super::cache::Continuation;
use super::feed_forward::{FeedForward, FeedForwardKept};
use super::geometry::Geometry;
use super::norm::{Norm, NormKept};
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::offload::{KeptTensors, Offloaded, TensorVisitor};

/// A layer of any modality, as the functions that run layers see it.
pub(in crate::model) trait Block<B: Backend> {
    /// The tensors that pass from layer to layer.
    type Stream: Clone + Send;
    /// The values that all layers of a chunk share.
    type Shared: Send;
    /// The state that the backward of one layer needs.
    type Parts: KeptTensors<B> + Send;

    fn forward(&self, x: Self::Stream, shared: &Self::Shared) -> (Self::Stream, Self::Parts);

    /// Returns the gradient of `x`; `dy` is the gradient of the result.
    fn backward(
        &self,
        parts: Self::Parts,
        dy: Self::Stream,
        shared: &Self::Shared,
        gradients: &mut Gradients<B>,
    ) -> Self::Stream;

    /// The same without the results of the attention cores.
    fn selective(parts: Self::Parts) -> Self::Parts;

    fn parts_bytes(parts: &Self::Parts) -> u64;

    /// Bytes of the shared values.
    fn shared_bytes(shared: &Self::Shared) -> u64;

    /// Bytes of the stream that differ from layer to layer. Values that layers only pass on are not counted.
    fn stream_bytes(x: &Self::Stream) -> u64;
}

/// One layer: `x + attention(norm(x))`, then `x + feed_forward(norm(x))`.
#[derive(Module, Debug)]
pub struct Layer<B: Backend> {
    /// Before the attention.
    pub attention_norm: Norm<B>,
    /// The attention.
    pub attention: Attention<B>,
    /// Before the feed-forward network.
    pub feed_forward_norm: Norm<B>,
    /// The feed-forward network.
    pub feed_forward: FeedForward<B>,
}

/// The state that the backward of one layer needs.
#[derive(Debug, Clone)]
pub(in crate::model) struct LayerParts<B: Backend> {
    attention_norm: NormKept<B>,
    attention: AttentionKept<B>,
    feed_forward_norm: NormKept<B>,
    feed_forward: FeedForwardKept<B>,
}

/// The state of one layer between forward and backward.
enum KeptLayer<B: Backend, L: Block<B>> {
    /// Everything that the backward needs, with or without the attention core.
    Parts(Box<L::Parts>),
    /// The input: the backward runs the forward again.
    Input(L::Stream),
    /// Everything that the backward needs, in host memory.
    Host(Box<Offloaded<L::Parts>>),
}

/// The state of the layers of a chunk between forward and backward.
pub(in crate::model) struct LayersKept<B: Backend, L: Block<B>> {
    shared: L::Shared,
    layers: Vec<KeptLayer<B, L>>,
}

impl<B: Backend> KeptTensors<B> for LayerParts<B> {
    fn each<V: TensorVisitor<B>>(&mut self, visit: &mut V) {
        self.attention_norm.each(visit);
        self.attention.each(visit);
        self.feed_forward_norm.each(visit);
        self.feed_forward.each(visit);
    }
}

impl<B: Backend> Layer<B> {
    /// Runs new tokens of documents whose earlier keys and values are `cached`; keeps nothing else.
    pub(in crate::model) fn extend(
        &self,
        x_rm: Tensor<B, 2>,
        at: &Continuation<B>,
        cached: &mut Option<[Tensor<B, 2>; 2]>,
    ) -> Tensor<B, 2> {
        let normed = self.attention_norm.forward(x_rm.clone()).0;
        let x_rm = x_rm + self.attention.extend(normed, at, cached);
        let normed = self.feed_forward_norm.forward(x_rm.clone()).0;
        x_rm + self.feed_forward.forward(normed).0
    }
}

impl<B: Backend> Block<B> for Layer<B> {
    type Stream = Tensor<B, 2>;
    type Shared = Geometry<B>;
    type Parts = LayerParts<B>;

    fn forward(&self, x_rm: Tensor<B, 2>, geometry: &Geometry<B>) -> (Tensor<B, 2>, LayerParts<B>) {
        let (normed, attention_norm) = self.attention_norm.forward(x_rm.clone());
        let (y_rm, attention) = self.attention.forward(normed, geometry);
        let x_rm = x_rm + y_rm;
        let (normed, feed_forward_norm) = self.feed_forward_norm.forward(x_rm.clone());
        let (y_rm, feed_forward) = self.feed_forward.forward(normed);
        (x_rm + y_rm, LayerParts { attention_norm, attention, feed_forward_norm, feed_forward })
    }

    fn backward(
        &self,
        parts: LayerParts<B>,
        dy: Tensor<B, 2>,
        geometry: &Geometry<B>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let normed = self.feed_forward_norm.output(&parts.feed_forward_norm);
        let d = self.feed_forward.backward(normed, parts.feed_forward, dy.clone(), gradients);
        let dx = dy + self.feed_forward_norm.backward(parts.feed_forward_norm, d, gradients);
        let normed = self.attention_norm.output(&parts.attention_norm);
        let given = AttentionGiven { kept: parts.attention, dy: dx.clone(), geometry };
        let d = self.attention.backward(normed, given, gradients);
        dx + self.attention_norm.backward(parts.attention_norm, d, gradients)
    }

    fn selective(parts: LayerParts<B>) -> LayerParts<B> {
        LayerParts { attention: parts.attention.selective(), ..parts }
    }

    fn parts_bytes(parts: &LayerParts<B>) -> u64 {
        parts.attention_norm.bytes()
            + parts.attention.bytes()
            + parts.feed_forward_norm.bytes()
            + parts.feed_forward.bytes()
    }

    fn shared_bytes(geometry: &Geometry<B>) -> u64 {
        geometry.bytes()
    }

    fn stream_bytes(x_rm: &Tensor<B, 2>) -> u64 {
        bytes_of(x_rm)
    }
}

/// Runs layers and keeps nothing.
pub(in crate::model) fn forward<B: Backend, L: Block<B>>(
    layers: &[L],
    x: L::Stream,
    shared: &L::Shared,
) -> L::Stream {
    layers.iter().fold(x, |x, layer| layer.forward(x, shared).0)
}

/// Runs layers; each keeps tensors by its memory strategy. Layers without a strategy keep everything.
pub(in crate::model) fn forward_kept<B: Backend, L: Block<B>>(
    layers: &[L],
    x: L::Stream,
    shared: L::Shared,
    strategies: &[LayerStrategy],
) -> (L::Stream, LayersKept<B, L>) {
    let mut x = x;
    let mut kept = Vec::with_capacity(layers.len());
    for (i, layer) in layers.iter().enumerate() {
        let input = x.clone();
        let (y, parts) = layer.forward(x, &shared);
        kept.push(match strategies.get(i) {
            Some(LayerStrategy::Full) => KeptLayer::Input(input),
            Some(LayerStrategy::Offload) => KeptLayer::Host(Box::new(Offloaded::new(parts))),
            Some(LayerStrategy::Selective) => KeptLayer::Parts(Box::new(L::selective(parts))),
            _ => KeptLayer::Parts(Box::new(parts)),
        });
        x = y;
    }
    (x, LayersKept { shared, layers: kept })
}

/// The gradient of the input of [`forward_kept`].
pub(in crate::model) fn backward<B: Backend, L: Block<B>>(
    layers: &[L],
    kept: LayersKept<B, L>,
    dy: L::Stream,
    gradients: &mut Gradients<B>,
) -> L::Stream {
    let LayersKept { shared, layers: kept } = kept;
    layers.iter().zip(kept).rev().fold(dy, |dy, (layer, kept)| {
        let parts = match kept {
            KeptLayer::Parts(parts) => *parts,
            KeptLayer::Input(x) => layer.forward(x, &shared).1,
            KeptLayer::Host(parts) => parts.back(),
        };
        layer.backward(parts, dy, &shared, gradients)
    })
}

impl<B: Backend, L: Block<B>> LayersKept<B, L> {
    /// Bytes on the device.
    pub(in crate::model) fn bytes(&self) -> u64 {
        L::shared_bytes(&self.shared) + self.layer_bytes()
    }

    /// Bytes on the device without the values that layers share.
    pub(in crate::model) fn layer_bytes(&self) -> u64 {
        let of = |kept: &KeptLayer<B, L>| match kept {
            KeptLayer::Input(x) => L::stream_bytes(x),
            KeptLayer::Parts(parts) => L::parts_bytes(parts),
            KeptLayer::Host(_) => 0,
        };
        self.layers.iter().map(of).sum()
    }
}
