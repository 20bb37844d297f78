//! Pixels of a scene.

use image::{Rgb, RgbImage};

use super::{Colour, Object, Scene, Shape};

/// Samples a side of a pixel, for smooth edges.
const SAMPLES: u32 = 3;

impl Scene {
    /// Draws it at `side_px` x `side_px`.
    pub fn draw(&self, side_px: u32) -> RgbImage {
        let side = side_px as f32;
        RgbImage::from_fn(side_px, side_px, |x, y| {
            let mut sum = [0.0f32; 3];
            for i in 0..SAMPLES * SAMPLES {
                let at =
                    |pixel: u32, i: u32| (pixel as f32 + (i as f32 + 0.5) / SAMPLES as f32) / side;
                let (u, v) = (at(x, i % SAMPLES), at(y, i / SAMPLES));
                let hit = self.objects.iter().find(|o| o.covers(u, v));
                let colour = hit.map_or([self.ground; 3], |o| o.colour.rgb());
                sum.iter_mut().zip(colour).for_each(|(s, c)| *s += c);
            }
            Rgb(sum.map(|s| (255.0 * s / (SAMPLES * SAMPLES) as f32).round() as u8))
        })
    }
}

impl Colour {
    /// Red, green and blue, 0 to 1.
    pub(crate) const fn rgb(self) -> [f32; 3] {
        match self {
            Self::Red => [0.9, 0.1, 0.1],
            Self::Green => [0.1, 0.7, 0.2],
            Self::Blue => [0.1, 0.3, 0.9],
            Self::Yellow => [0.95, 0.85, 0.1],
            Self::Purple => [0.6, 0.2, 0.8],
            Self::Black => [0.05, 0.05, 0.05],
        }
    }
}

impl Object {
    /// Whether it covers a point of the picture.
    pub(crate) fn covers(&self, u: f32, v: f32) -> bool {
        let (x, y) = ((u - self.x) / self.radius, (v - self.y) / self.radius);
        match self.shape {
            Shape::Ring => (0.3..=1.0).contains(&(x * x + y * y)),
            Shape::Square => x.abs() <= 0.85 && y.abs() <= 0.85,
            Shape::Triangle => y <= 0.9 && y >= 2.0 * x.abs() - 1.0,
            Shape::Cross => x.abs().min(y.abs()) <= 0.3 && x.abs().max(y.abs()) <= 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_has_its_colour_at_its_centre_and_the_ground_is_around_it() {
        for shape in [Shape::Square, Shape::Triangle, Shape::Cross] {
            let object = Object { colour: Colour::Red, shape, x: 0.25, y: 0.5, radius: 0.15 };
            let picture = Scene { objects: vec![object], ground: 1.0 }.draw(32);
            assert_eq!(picture.get_pixel(8, 16).0, [230, 26, 26], "{shape:?}");
            assert_eq!(picture.get_pixel(24, 16).0, [255, 255, 255]);
        }
    }

    #[test]
    fn shapes_differ() {
        let pictures = Shape::ALL.map(|shape| {
            let object = Object { colour: Colour::Black, shape, x: 0.5, y: 0.5, radius: 0.15 };
            Scene { objects: vec![object], ground: 1.0 }.draw(32)
        });
        for (i, a) in pictures.iter().enumerate() {
            assert!(pictures[..i].iter().all(|b| a != b));
        }
    }
}
