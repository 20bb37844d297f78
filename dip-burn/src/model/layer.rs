//! The pre-norm transformer layer of encoder and decoder, and runs of layers under memory strategies.
//!
//! Shape legend: r rows, m width.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::LayerStrategy;

use super::attention::{Attention, AttentionKept, Geometry};
use super::feed_forward::{FeedForward, FeedForwardKept};
use super::gradients::{Gradients, bytes_of};
use super::norm::{Norm, NormKept};

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

/// What the backward of one layer needs.
#[derive(Debug, Clone)]
struct Parts<B: Backend> {
    attention_norm: NormKept<B>,
    attention: AttentionKept<B>,
    feed_forward_norm: NormKept<B>,
    feed_forward: FeedForwardKept<B>,
}

/// What is held of one layer between forward and backward.
#[derive(Debug, Clone)]
enum Kept<B: Backend> {
    /// All that the backward needs, or all but the attention core.
    Parts(Box<Parts<B>>),
    /// The input: the backward runs the forward again.
    Input(Tensor<B, 2>),
}

/// What is held of a run of layers between forward and backward.
#[derive(Debug, Clone)]
pub struct LayersKept<B: Backend> {
    geometry: Geometry<B>,
    layers: Vec<Kept<B>>,
}

impl<B: Backend> Layer<B> {
    fn forward(&self, x_rm: Tensor<B, 2>, geometry: &Geometry<B>) -> (Tensor<B, 2>, Parts<B>) {
        let (normed, attention_norm) = self.attention_norm.forward(x_rm.clone());
        let (y_rm, attention) = self.attention.forward(normed, geometry);
        let x_rm = x_rm + y_rm;
        let (normed, feed_forward_norm) = self.feed_forward_norm.forward(x_rm.clone());
        let (y_rm, feed_forward) = self.feed_forward.forward(normed);
        (x_rm + y_rm, Parts { attention_norm, attention, feed_forward_norm, feed_forward })
    }

    fn backward(
        &self,
        parts: Parts<B>,
        dy: Tensor<B, 2>,
        geometry: &Geometry<B>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let normed = self.feed_forward_norm.output(&parts.feed_forward_norm);
        let d = self.feed_forward.backward(normed, parts.feed_forward, dy.clone(), gradients);
        let dx = dy + self.feed_forward_norm.backward(parts.feed_forward_norm, d, gradients);
        let normed = self.attention_norm.output(&parts.attention_norm);
        let d = (dx.clone(), geometry);
        let d = self.attention.backward(normed, parts.attention, d, gradients);
        dx + self.attention_norm.backward(parts.attention_norm, d, gradients)
    }
}

/// Runs layers and keeps nothing.
pub(super) fn forward<B: Backend>(
    layers: &[Layer<B>],
    x_rm: Tensor<B, 2>,
    geometry: &Geometry<B>,
) -> Tensor<B, 2> {
    layers.iter().fold(x_rm, |x_rm, layer| layer.forward(x_rm, geometry).0)
}

/// Runs layers and keeps what the strategy of each says; layers beyond the strategies keep everything.
pub(super) fn forward_kept<B: Backend>(
    layers: &[Layer<B>],
    x_rm: Tensor<B, 2>,
    geometry: Geometry<B>,
    strategies: &[LayerStrategy],
) -> (Tensor<B, 2>, LayersKept<B>) {
    let mut x_rm = x_rm;
    let mut kept = Vec::with_capacity(layers.len());
    for (i, layer) in layers.iter().enumerate() {
        let input = x_rm.clone();
        let (y_rm, mut parts) = layer.forward(x_rm, &geometry);
        kept.push(match strategies.get(i) {
            Some(LayerStrategy::Full) => Kept::Input(input),
            Some(LayerStrategy::Selective) => {
                parts.attention = parts.attention.selective();
                Kept::Parts(Box::new(parts))
            }
            _ => Kept::Parts(Box::new(parts)),
        });
        x_rm = y_rm;
    }
    (x_rm, LayersKept { geometry, layers: kept })
}

/// The gradient of the input of [`forward_kept`].
pub(super) fn backward<B: Backend>(
    layers: &[Layer<B>],
    kept: LayersKept<B>,
    dy: Tensor<B, 2>,
    gradients: &mut Gradients<B>,
) -> Tensor<B, 2> {
    let LayersKept { geometry, layers: kept } = kept;
    layers.iter().zip(kept).rev().fold(dy, |dy, (layer, kept)| {
        let parts = match kept {
            Kept::Parts(parts) => *parts,
            Kept::Input(x_rm) => layer.forward(x_rm, &geometry).1,
        };
        layer.backward(parts, dy, &geometry, gradients)
    })
}

impl<B: Backend> LayersKept<B> {
    /// Bytes that are held.
    pub(super) fn bytes(&self) -> u64 {
        let of = |kept: &Kept<B>| match kept {
            Kept::Input(x_rm) => bytes_of(x_rm),
            Kept::Parts(p) => {
                p.attention_norm.bytes()
                    + p.attention.bytes()
                    + p.feed_forward_norm.bytes()
                    + p.feed_forward.bytes()
            }
        };
        self.geometry.bytes() + self.layers.iter().map(of).sum::<u64>()
    }
}
