//! The layers of the decoder: causal attention inside each document, with rotary positions.

use burn::tensor::backend::Backend;
use dip_core::ModuleSpec;

use super::DecoderChunk;
use crate::model::block::attention::Attention;
use crate::model::block::cache::{Continuation, KeyValueCache};
use crate::model::block::feed_forward::FeedForward;
use crate::model::block::geometry::Geometry;
use crate::model::block::layer::Layer;
use crate::model::block::norm::Norm;
use crate::model::block::rotary::Rotary;
use crate::model::{Init, Slice};

/// Layer `number` of a decoder.
pub(super) fn init<B: Backend>(spec: &ModuleSpec, number: u32, init: &Init<'_, B>) -> Layer<B> {
    let norm = || Norm::rms(spec.hidden as usize, init).with_epsilon(spec.options.norm_epsilon);
    let path = format!("layers.{number}");
    Layer {
        attention_norm: norm(),
        attention: Attention::init(spec, &path, init).with_window(spec.window_of(number).is_some()),
        feed_forward_norm: norm(),
        feed_forward: FeedForward::init(spec, &path, spec.options.feed_forward_bias, init),
    }
}

impl<B: Backend> DecoderChunk<B> {
    /// Positions and attention spans of the rows of a slice.
    pub(super) fn geometry(&self, on: &Slice<'_>, device: &B::Device) -> Geometry<B> {
        let rows = on.microbatch.text_rows(&on.instances);
        let positions = &on.microbatch.positions[rows.clone()];
        let rotary = Rotary::sequence(positions, &self.frequencies, device);
        let documents = &on.microbatch.documents[rows];
        let geometry = Geometry::causal_documents(self.heads, &rotary, documents);
        geometry.with_window(self.heads, documents, self.window)
    }

    /// The rows of a slice as new tokens of the documents in `cache`.
    pub(super) fn continuation(
        &self,
        on: &Slice<'_>,
        cache: &mut KeyValueCache<B>,
        device: &B::Device,
    ) -> Continuation<B> {
        let rows = on.microbatch.text_rows(&on.instances);
        let positions = &on.microbatch.positions[rows.clone()];
        let rotary = Rotary::sequence(positions, &self.frequencies, device);
        cache.advance(&on.microbatch.documents[rows], &rotary, self.heads, self.window)
    }
}
