//! The layers of the vision encoder: attention inside each frame of each view or inside windows, with rotary rows and columns or
//! learned positions.

use burn::tensor::backend::Backend;
use dip_core::ModuleSpec;

use super::VitChunk;
use super::frames::Frames;
use crate::batch::ViewGrid;
use crate::model::Init;
use crate::model::block::attention::Attention;
use crate::model::block::feed_forward::FeedForward;
use crate::model::block::geometry::Geometry;
use crate::model::block::layer::Layer;
use crate::model::block::norm::Norm;
use crate::model::block::rotary::Rotary;

/// Layer `number` of an encoder.
pub(super) fn init<B: Backend>(spec: &ModuleSpec, number: u32, init: &Init<'_, B>) -> Layer<B> {
    let norm = || Norm::of_encoder(spec, spec.hidden as usize, init);
    let is_windowed = spec.kind.modality().is_windowed(number);
    let path = format!("layers.{number}");
    Layer {
        attention_norm: norm(),
        attention: Attention::init(spec, &path, init).with_window(is_windowed),
        feed_forward_norm: norm(),
        feed_forward: FeedForward::init(spec, &path, true, init),
    }
}

impl<B: Backend> VitChunk<B> {
    /// Positions and attention spans of the rows of some images.
    pub(super) fn geometry(&self, frames: &Frames, device: &B::Device) -> Geometry<B> {
        let geometry = self.whole_geometry(frames, device);
        match &frames.order {
            Some(order) => geometry.with_windows(&order.lengths),
            None => geometry,
        }
    }

    fn whole_geometry(&self, frames: &Frames, device: &B::Device) -> Geometry<B> {
        let grids = &frames.grids;
        let lengths = || grids.iter().map(ViewGrid::patches);
        let Some(theta) = self.rope_theta else {
            let class = usize::from(self.class_token);
            let lengths = lengths().map(|patches| patches + class);
            return Geometry::without_positions(&lengths.collect::<Vec<_>>());
        };
        let places = self.places(frames);
        let places: Vec<_> = places.iter().map(|place| (place.row, place.column)).collect();
        let rotary = |places| Rotary::grid(places, self.heads.head_dim, theta, device);
        // Equal frames share one table of positions.
        if grids.windows(2).all(|pair| pair[0] == pair[1]) {
            let one = &places[..places.len() / grids.len().max(1)];
            return Geometry::full(self.heads, &rotary(one), grids.len());
        }
        Geometry::packed_runs(self.heads, &rotary(&places), &lengths().collect::<Vec<_>>())
    }
}
