//! The layers of the vision encoder: full attention inside each frame of each view, with rotary rows and columns or learned positions.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::ModuleSpec;

use super::VitChunk;
use super::start::sequences;
use crate::batch::ViewGrid;
use crate::model::block::attention::{Attention, Geometry};
use crate::model::block::feed_forward::FeedForward;
use crate::model::block::layer::Layer;
use crate::model::block::norm::Norm;
use crate::model::block::rotary::Rotary;
use crate::model::{Init, Slice};

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
    /// Positions and attention spans of the rows of some images.
    pub(super) fn geometry(&self, on: &Slice<'_>, x_rm: &Tensor<B, 2>) -> Geometry<B> {
        let grids = sequences(on);
        let Some(theta) = self.rope_theta else {
            let class = usize::from(self.class_token);
            let lengths = grids.iter().map(|grid| grid.patches() + class);
            return Geometry::without_positions(&lengths.collect::<Vec<_>>());
        };
        let rotary = |places: &[(u32, u32)]| {
            Rotary::grid(places, self.heads.head_dim, theta, &x_rm.device())
        };
        // Equal sequences share one table of positions.
        if grids.windows(2).all(|pair| pair[0] == pair[1]) {
            let places = grids.first().map(|grid| self.patch.places(grid)).unwrap_or_default();
            return Geometry::full(self.heads, &rotary(&places), grids.len());
        }
        let places: Vec<_> = grids.iter().flat_map(|grid| self.patch.places(grid)).collect();
        let lengths: Vec<usize> = grids.iter().map(ViewGrid::patches).collect();
        Geometry::packed_runs(self.heads, &rotary(&places), &lengths)
    }
}
