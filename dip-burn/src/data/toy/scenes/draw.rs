//! Pixels of a scene.

use dip_core::hf::PixelSize;
use image::{Rgb, RgbImage};

use super::Scene;
use crate::data::picture::{PictureError, PixelSource};
use crate::data::toy::shape::sample_points;

impl Scene {
    /// Draws the scene for a model that asks for pictures of `side_px` x `side_px`.
    pub fn draw(&self, side_px: u32) -> RgbImage {
        let PixelSize { width, height } = self.size(side_px);
        let unit_px = width.min(height) as f32;
        RgbImage::from_fn(width, height, |x, y| {
            let (mut sum, mut count) = ([0.0f32; 3], 0);
            for (u, v) in sample_points(x, y, unit_px) {
                let hit = self.objects.iter().find(|o| o.covers(u, v));
                let colour = hit.map_or([self.ground; 3], |o| o.colour.rgb());
                sum.iter_mut().zip(colour).for_each(|(s, c)| *s += c);
                count += 1;
            }
            Rgb(sum.map(|s| (255.0 * s / count as f32).round() as u8))
        })
    }
}

impl PixelSource for Scene {
    fn size(&self, side_px: u32) -> PixelSize {
        let px = |side: f32| ((side * side_px as f32).round() as u32).max(1);
        PixelSize::new(px(self.frame.width), px(self.frame.height))
    }

    fn rgb(&self, side_px: u32) -> Result<RgbImage, PictureError> {
        Ok(self.draw(side_px))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::toy::scenes::Frame;
    use crate::data::toy::{Colour, Object, Shape};

    fn square(object: Object) -> Scene {
        Scene { objects: vec![object], ground: 1.0, frame: Frame::SQUARE }
    }

    #[test]
    fn a_shape_has_its_colour_at_its_centre_and_the_ground_is_around_it() {
        for shape in [Shape::Square, Shape::Triangle, Shape::Cross] {
            let object = Object { colour: Colour::Red, shape, x: 0.25, y: 0.5, radius: 0.15 };
            let picture = square(object).draw(32);
            assert_eq!(picture.get_pixel(8, 16).0, [230, 26, 26], "{shape:?}");
            assert_eq!(picture.get_pixel(24, 16).0, [255, 255, 255]);
        }
    }

    #[test]
    fn shapes_differ() {
        let pictures = Shape::ALL.map(|shape| {
            let object = Object { colour: Colour::Black, shape, x: 0.5, y: 0.5, radius: 0.15 };
            square(object).draw(32)
        });
        for (i, a) in pictures.iter().enumerate() {
            assert!(pictures[..i].iter().all(|b| a != b));
        }
    }
}
