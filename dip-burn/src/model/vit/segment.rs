//! Runs the layers of a chunk, in segments that end where a feature is merged.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{LayerStrategy, VitSpec};

use super::{Stream, VitChunk};
use crate::model::Gradients;
use crate::model::block::geometry::Geometry;
use crate::model::block::layer::{self as run, Layer, LayersKept};
use crate::model::block::merger::MergerKept;

/// Consecutive layers of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// The layers, counted from the first of the chunk.
    layers: Range<usize>,
    /// The number of the feature that is merged from its output, if any.
    feature: Option<usize>,
}

/// The segments of a chunk of these layers of the encoder.
pub(super) fn segments(vit: &VitSpec, layers: &Range<u32>) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (i, layer) in layers.clone().enumerate() {
        let feature = vit.stacked_layers.iter().position(|&stacked| stacked == layer);
        match segments.last_mut() {
            Some(last) if last.feature.is_none() => {
                last.layers.end = i + 1;
                last.feature = feature;
            }
            _ => segments.push(Segment { layers: i..i + 1, feature }),
        }
    }
    segments
}

/// The state that the backward of a segment needs.
pub(super) struct SegmentKept<B: Backend> {
    layers: LayersKept<B, Layer<B>>,
    merger: Option<MergerKept<B>>,
}

impl<B: Backend> SegmentKept<B> {
    /// Bytes on the device, without the positions and masks that segments share.
    pub(super) fn bytes(&self) -> u64 {
        self.layers.layer_bytes() + self.merger.as_ref().map_or(0, MergerKept::bytes)
    }
}

impl<B: Backend> VitChunk<B> {
    /// Runs all layers and keeps nothing.
    pub(super) fn run(&self, stream: Stream<B>, geometry: &Geometry<B>) -> Stream<B> {
        let Stream { mut x_rm, mut features } = stream;
        for segment in &self.segments {
            let layers = &self.layers[segment.layers.clone()];
            x_rm = run::forward(layers, x_rm, geometry);
            features.extend(self.merged(segment, &x_rm).map(|(feature, _)| feature));
        }
        Stream { x_rm, features }
    }

    /// Runs all layers; each keeps tensors by its strategy.
    pub(super) fn run_kept(
        &self,
        stream: Stream<B>,
        geometry: &Geometry<B>,
        strategies: &[LayerStrategy],
    ) -> (Stream<B>, Vec<SegmentKept<B>>) {
        let Stream { mut x_rm, mut features } = stream;
        let mut kept = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            let range = segment.layers.clone();
            let strategies = strategies.get(range.clone()).unwrap_or_default();
            let geometry = geometry.clone();
            let (y, layers) = run::forward_kept(&self.layers[range], x_rm, geometry, strategies);
            let (feature, merger) = self.merged(segment, &y).unzip();
            features.extend(feature);
            kept.push(SegmentKept { layers, merger });
            x_rm = y;
        }
        (Stream { x_rm, features }, kept)
    }

    /// The gradients of the stream before the layers. `d` has the gradients of all features so far; those that this chunk has merged
    /// are taken from its end.
    pub(super) fn run_backward(
        &self,
        kept: Vec<SegmentKept<B>>,
        d: Stream<B>,
        gradients: &mut Gradients<B>,
    ) -> Stream<B> {
        let Stream { x_rm: mut dx, mut features } = d;
        for (segment, SegmentKept { layers, merger }) in self.segments.iter().zip(kept).rev() {
            let own = segment.feature.and_then(|number| self.stacked[number].as_ref());
            if let (Some(adapter), Some(merger)) = (own, merger) {
                let d = features.pop().expect("every feature has a gradient");
                dx = dx + adapter.backward(merger, d, gradients);
            }
            dx = run::backward(&self.layers[segment.layers.clone()], layers, dx, gradients);
        }
        Stream { x_rm: dx, features }
    }

    /// The feature after a segment, `[t, o]`, and the tensors that its backward needs.
    fn merged(
        &self,
        segment: &Segment,
        x_rm: &Tensor<B, 2>,
    ) -> Option<(Tensor<B, 2>, MergerKept<B>)> {
        let adapter = self.stacked[segment.feature?].as_ref()?;
        Some(adapter.forward(x_rm.clone()))
    }
}

#[cfg(test)]
mod tests {
    use dip_core::Tower;

    use super::*;

    #[test]
    fn a_segment_ends_where_a_feature_is_merged() {
        let vit =
            VitSpec { stacked_layers: vec![0, 3], ..VitSpec::squares(16, 2, 2, Tower::Qwen3Vl) };
        let segments = |layers| -> Vec<_> {
            segments(&vit, &layers).into_iter().map(|s| (s.layers, s.feature)).collect()
        };
        assert_eq!(segments(0..6), [(0..1, Some(0)), (1..4, Some(1)), (4..6, None)]);
        assert_eq!(segments(3..6), [(0..1, Some(1)), (1..3, None)]);
    }
}
