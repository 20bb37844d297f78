//! Compares frames with a caption by simple measurements, without a model.
//!
//! The median colour is the background, and the pixels that differ from it are the shape. The mean colour of the shape is compared
//! with the colours of captions, the path of its centre with the directions, and its outline with shapes drawn at the same place.

use image::RgbImage;
use serde::Serialize;

use super::draw::coverage;
use super::{ClipCaption, Motion};
use crate::data::toy::shape::{Colour, Object, Shape};

/// Least distance from the background's colour at which a pixel belongs to the shape; channels are 0 to 1.
const MIN_DISTANCE: f32 = 0.35;
/// Least path of the centre that counts as movement, as a fraction of the shorter side.
const MIN_PATH: f32 = 0.12;
/// Least pixels of a shape, as a fraction of the frame.
const MIN_AREA: f32 = 0.01;

/// The parts of a caption that frames show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SampleMatch {
    /// The caption's colour is the nearest to the colour of the shape.
    pub colour: bool,
    /// The caption's shape fits the outline best.
    pub shape: bool,
    /// The centre moves in the caption's direction.
    pub direction: bool,
}

impl SampleMatch {
    /// True if the frames show all of the caption.
    pub fn all(self) -> bool {
        self.colour && self.shape && self.direction
    }
}

/// Compares frames with a caption. Frames without a shape match nothing.
pub fn match_clip(frames: &[RgbImage], caption: ClipCaption) -> SampleMatch {
    let blobs: Vec<Blob> = frames.iter().filter_map(Blob::find).collect();
    if blobs.len() < frames.len().div_ceil(2) {
        return SampleMatch::default();
    }
    SampleMatch {
        colour: colour_of(&blobs) == Some(caption.colour),
        shape: shape_of(&blobs) == Some(caption.shape),
        direction: direction_of(&blobs) == Some(caption.direction),
    }
}

/// The pixels of a frame that differ from its background.
struct Blob {
    width: u32,
    height: u32,
    /// Distance of each pixel from the background's colour, 0 to 1.
    mask: Vec<f32>,
    colour: [f32; 3],
    centre: (f32, f32),
}

impl Blob {
    fn find(frame: &RgbImage) -> Option<Self> {
        let pixels: Vec<[f32; 3]> =
            frame.pixels().map(|p| p.0.map(|c| f32::from(c) / 255.0)).collect();
        let background = [0, 1, 2].map(|i| median(pixels.iter().map(|p| p[i]).collect()));
        let distances: Vec<f32> = pixels.iter().map(|&p| distance(p, background)).collect();
        let largest = distances.iter().copied().fold(0.0, f32::max);
        let inside: Vec<usize> =
            (0..pixels.len()).filter(|&i| distances[i] > MIN_DISTANCE.max(0.5 * largest)).collect();
        if (inside.len() as f32) < MIN_AREA * pixels.len() as f32 {
            return None;
        }
        let (width, height) = frame.dimensions();
        let mean = |of: &dyn Fn(usize) -> f32| {
            inside.iter().map(|&i| of(i)).sum::<f32>() / inside.len() as f32
        };
        let column = |i: usize| (i as u32 % width) as f32 + 0.5;
        let row = |i: usize| (i as u32 / width) as f32 + 0.5;
        Some(Self {
            width,
            height,
            mask: distances.iter().map(|&d| (d / largest).min(1.0)).collect(),
            colour: [0, 1, 2].map(|c| mean(&|i| pixels[i][c])),
            centre: (mean(&column), mean(&row)),
        })
    }

    /// Intersection over union of the pixels and a shape at the place and size that fit best.
    fn agreement(&self, shape: Shape) -> f32 {
        let short = self.width.min(self.height) as f32;
        let mut best = 0.0f32;
        for radius in [0.24, 0.27, 0.3] {
            for (dx, dy) in (-2..=2).flat_map(|x| (-2..=2).map(move |y| (x, y))) {
                let x = (self.centre.0 + dx as f32) / short;
                let y = (self.centre.1 + dy as f32) / short;
                let object = Object { colour: Colour::Black, shape, x, y, radius };
                best = best.max(self.overlap(&object, short));
            }
        }
        best
    }

    /// Intersection over union of the pixels and an object.
    fn overlap(&self, object: &Object, short: f32) -> f32 {
        let (mut both, mut any) = (0.0, 0.0);
        for (i, &mask) in self.mask.iter().enumerate() {
            let (x, y) = (i as u32 % self.width, i as u32 / self.width);
            let covered = coverage(object, x, y, short);
            both += mask.min(covered);
            any += mask.max(covered);
        }
        both / any.max(f32::MIN_POSITIVE)
    }
}

fn colour_of(blobs: &[Blob]) -> Option<Colour> {
    let mean = [0, 1, 2].map(|i| median(blobs.iter().map(|b| b.colour[i]).collect()));
    let to = |c: &Colour| distance(c.rgb(), mean);
    Colour::ALL.into_iter().min_by(|a, b| to(a).total_cmp(&to(b)))
}

fn shape_of(blobs: &[Blob]) -> Option<Shape> {
    let sum = |s: &Shape| blobs.iter().map(|b| b.agreement(*s)).sum::<f32>();
    let sums = Shape::ALL.map(|s| (s, sum(&s)));
    sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(shape, _)| shape)
}

/// The direction from the first frame that shows the shape to the last.
fn direction_of(blobs: &[Blob]) -> Option<Motion> {
    let (first, last) = (blobs.first()?, blobs.last()?);
    let short = first.width.min(first.height) as f32;
    let x = (last.centre.0 - first.centre.0) / short;
    let y = (last.centre.1 - first.centre.1) / short;
    let along = |d: &Motion| d.vector().0 * x + d.vector().1 * y;
    let best = Motion::ALL.into_iter().max_by(|a, b| along(a).total_cmp(&along(b)))?;
    (along(&best) >= MIN_PATH).then_some(best)
}

fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
}

fn median(mut values: Vec<f32>) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::toy::{DataSplit, MovingConfig, MovingShapes};

    #[test]
    fn drawn_clips_match_their_captions_and_no_others() {
        let source = MovingShapes::new(MovingConfig { seed: 2, split: DataSplit::Train });
        for n in 0..24 {
            let clip = source.clip(n);
            let frames: Vec<RgbImage> = (0..4).map(|i| clip.draw(i as f32 / 3.0)).collect();
            let caption = clip.caption();
            assert!(match_clip(&frames, caption).all(), "clip {n}: {caption}");
            let colour = Colour::ALL[(caption.colour as usize + 1) % 6];
            assert!(!match_clip(&frames, ClipCaption { colour, ..caption }).colour);
            let still = vec![frames[0].clone(); 4];
            assert!(!match_clip(&still, caption).direction);
            let blank = RgbImage::from_pixel(24, 24, image::Rgb([240; 3]));
            assert_eq!(match_clip(&[blank], caption), SampleMatch::default());
        }
    }
}
