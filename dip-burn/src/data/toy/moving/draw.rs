//! Frames of a moving shape.

use image::{Rgb, RgbImage};

use super::MovingShape;
use crate::data::scenes::Object;

/// Samples a side of a pixel, for smooth edges.
const SAMPLES: u32 = 3;

impl MovingShape {
    /// The frame at a share of the whole way, 0 to 1.
    pub fn draw(&self, way: f32) -> RgbImage {
        let (dx, dy) = self.direction.vector();
        let from_middle = (way - 0.5) * self.distance;
        let object = Object {
            x: self.object.x + dx * from_middle,
            y: self.object.y + dy * from_middle,
            ..self.object
        };
        let (colour, ground) = (object.colour.rgb(), [self.ground; 3]);
        let short = self.width_px.min(self.height_px) as f32;
        RgbImage::from_fn(self.width_px, self.height_px, |x, y| {
            let covered = coverage(&object, (x, y), short);
            let mix = |i: usize| covered * colour[i] + (1.0 - covered) * ground[i];
            Rgb([0, 1, 2].map(|i| (255.0 * mix(i)).round() as u8))
        })
    }
}

/// The share of a pixel that an object covers; `short` pixels are one unit of its coordinates.
pub(super) fn coverage(object: &Object, (x, y): (u32, u32), short: f32) -> f32 {
    let at = |pixel: u32, i: u32| (pixel as f32 + (i as f32 + 0.5) / SAMPLES as f32) / short;
    let hit = |i: &u32| object.covers(at(x, i % SAMPLES), at(y, i / SAMPLES));
    let hits = (0..SAMPLES * SAMPLES).filter(hit).count();
    hits as f32 / (SAMPLES * SAMPLES) as f32
}
