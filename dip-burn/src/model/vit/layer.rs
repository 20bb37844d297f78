//! The layers of the vision encoder: full attention inside each image, with rotary rows and columns or learned positions.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::ModuleSpec;

use super::VitChunk;
use crate::model::Init;
use crate::model::block::attention::{Attention, Geometry};
use crate::model::block::feed_forward::FeedForward;
use crate::model::block::layer::Layer;
use crate::model::block::norm::Norm;
use crate::model::block::rotary::Rotary;

/// Layer `number` of an encoder.
pub(super) fn init<B: Backend>(spec: &ModuleSpec, number: u32, init: &Init<'_, B>) -> Layer<B> {
    let norm = || Norm::of_encoder(spec, spec.hidden as usize, init);
    let path = format!("layers.{number}");
    Layer {
        attention_norm: norm(),
        attention: Attention::init(spec, &path, init),
        feed_forward_norm: norm(),
        feed_forward: FeedForward::init(spec, &path, true, init),
    }
}

impl<B: Backend> VitChunk<B> {
    /// Positions and attention spans of the rows of `n` images.
    pub(super) fn geometry(&self, n: usize, x_rm: &Tensor<B, 2>) -> Geometry<B> {
        let Some(theta) = self.rope_theta else {
            return Geometry::without_positions(n, x_rm.dims()[0] / n);
        };
        let places = self.grid.places();
        let rotary = Rotary::grid(&places, self.heads.head_dim, theta, &x_rm.device());
        Geometry::full(self.heads, &rotary, n)
    }
}
