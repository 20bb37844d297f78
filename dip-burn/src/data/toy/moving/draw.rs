//! Frames of a moving shape.

use image::{Rgb, RgbImage};

use super::MovingShape;
use crate::data::toy::shape::{Object, sample_points};
use crate::data::video::{FrameSource, VideoError};

impl MovingShape {
    /// The frame at a fraction `progress` of the clip, 0 to 1.
    pub fn draw(&self, progress: f32) -> RgbImage {
        let (dx, dy) = self.direction.vector();
        let from_middle = (progress - 0.5) * self.distance;
        let object = Object {
            x: self.object.x + dx * from_middle,
            y: self.object.y + dy * from_middle,
            ..self.object
        };
        let (colour, ground) = (object.colour.rgb(), [self.ground; 3]);
        let short_px = self.width_px.min(self.height_px) as f32;
        RgbImage::from_fn(self.width_px, self.height_px, |x, y| {
            let covered = coverage(&object, x, y, short_px);
            let mix = |i: usize| covered * colour[i] + (1.0 - covered) * ground[i];
            Rgb([0, 1, 2].map(|i| (255.0 * mix(i)).round() as u8))
        })
    }
}

impl FrameSource for MovingShape {
    fn seconds(&self) -> f64 {
        f64::from(self.seconds)
    }

    fn frames(&self, count: u32) -> Result<Vec<RgbImage>, VideoError> {
        Ok((0..count).map(|i| self.draw(i as f32 / (count - 1).max(1) as f32)).collect())
    }
}

/// The fraction of pixel (`x`, `y`) that an object covers, where `short_px` pixels are one unit of its coordinates.
pub(super) fn coverage(object: &Object, x: u32, y: u32, short_px: f32) -> f32 {
    let points = sample_points(x, y, short_px);
    let (hits, count) = points
        .fold((0, 0), |(hits, count), (u, v)| (hits + usize::from(object.covers(u, v)), count + 1));
    hits as f32 / count as f32
}
