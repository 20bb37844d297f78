//! Runs the layers of a decoder. The first of them add features from inside an encoder to the tokens of its images (DeepStack).
//!
//! Features lie beside the residual stream, `[t, m]` each and zero outside images; the input of the layers is `[t, m + k * m]` for
//! `k` features. The first layer adds the first to its output, the second layer the second, and so on. A chunk passes on the features
//! that its layers have not added.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::LayerStrategy;

use super::DecoderChunk;
use crate::model::Gradients;
use crate::model::block::cache::{Continuation, KeyValueCache};
use crate::model::block::columns;
use crate::model::block::geometry::Geometry;
use crate::model::block::layer::{self as run, Block, Layer, LayersKept};

/// The state of the layers between forward and backward.
pub(super) struct DecoderLayersKept<B: Backend> {
    /// The layers that add a feature, one by one.
    first: Vec<LayersKept<B, Layer<B>>>,
    rest: LayersKept<B, Layer<B>>,
}

impl<B: Backend> DecoderLayersKept<B> {
    pub(super) fn bytes(&self) -> u64 {
        // The positions and masks are those of the rest.
        self.first.iter().map(LayersKept::layer_bytes).sum::<u64>() + self.rest.bytes()
    }
}

impl<B: Backend> DecoderChunk<B> {
    /// Runs all layers and keeps nothing.
    pub(super) fn run(&self, x: Tensor<B, 2>, geometry: &Geometry<B>) -> Tensor<B, 2> {
        self.run_each(x, |_, layer, x_tm| layer.forward(x_tm, geometry).0)
    }

    /// Runs new tokens of documents whose earlier keys and values are in `cache`.
    pub(super) fn run_extended(
        &self,
        x: Tensor<B, 2>,
        at: &Continuation<B>,
        cache: &mut KeyValueCache<B>,
    ) -> Tensor<B, 2> {
        self.run_each(x, |number, layer, x_tm| layer.extend(x_tm, at, cache.layer(number)))
    }

    /// Runs all layers by `run`, and adds features.
    fn run_each(
        &self,
        x: Tensor<B, 2>,
        mut run: impl FnMut(usize, &Layer<B>, Tensor<B, 2>) -> Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let (mut x_tm, features) = columns::split(x, self.width, self.width);
        let mut features = features.into_iter();
        for (number, layer) in self.layers.iter().enumerate() {
            x_tm = run(number, layer, x_tm);
            if let Some(feature) = features.next() {
                x_tm = x_tm + feature;
            }
        }
        columns::join(x_tm, features.collect())
    }

    /// Runs all layers; each keeps tensors by its strategy.
    pub(super) fn run_kept(
        &self,
        x: Tensor<B, 2>,
        geometry: Geometry<B>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, DecoderLayersKept<B>) {
        let (mut x_tm, mut features) = columns::split(x, self.width, self.width);
        let adding = features.len().min(self.layers.len());
        let of = |from: usize| strategies.get(from..).unwrap_or_default();
        let mut first = Vec::with_capacity(adding);
        for (i, feature) in features.drain(..adding).enumerate() {
            let layer = &self.layers[i..=i];
            let (y, kept) = run::forward_kept(layer, x_tm, geometry.clone(), of(i));
            first.push(kept);
            x_tm = y + feature;
        }
        let layers = &self.layers[adding..];
        let (x_tm, rest) = run::forward_kept(layers, x_tm, geometry, of(adding));
        (columns::join(x_tm, features), DecoderLayersKept { first, rest })
    }

    /// The gradient of the input of [`run_kept`](Self::run_kept).
    pub(super) fn run_backward(
        &self,
        kept: DecoderLayersKept<B>,
        dy: Tensor<B, 2>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let DecoderLayersKept { first, rest } = kept;
        let (dy, later) = columns::split(dy, self.width, self.width);
        let mut dx = run::backward(&self.layers[first.len()..], rest, dy, gradients);
        let mut features = Vec::with_capacity(first.len() + later.len());
        for (layer, kept) in self.layers.iter().zip(first).rev() {
            features.push(dx.clone());
            dx = run::backward(std::slice::from_ref(layer), kept, dx, gradients);
        }
        features.reverse();
        features.extend(later);
        columns::join(dx, features)
    }
}
