//! An endless supply of documents about drawn scenes of coloured shapes.
//!
//! A document has no picture (a sum of shapes in words), one, or several, each followed by its caption. So batches vary in their
//! images like real batches.

mod draw;
mod shards;

pub use shards::write_scene_shards;

use std::sync::Arc;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::shape::{Colour, DataSplit, Object, Shape};
use crate::data::document::Document;
use crate::data::error::DataError;
use crate::data::picture::Picture;
use crate::data::piece::DocumentPiece;
use crate::data::source::{DataSource, SourcePosition};

/// Most shapes of one scene.
const MAX_SHAPES: usize = 3;
/// One combination of several shapes in this many is held out.
const HELD_OUT_ONE_IN: u64 = 8;
const NUMBERS: [&str; 7] = ["no", "one", "two", "three", "four", "five", "six"];

/// A picture of a few shapes side by side, on a light background.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// The shapes, from left to right.
    pub objects: Vec<Object>,
    /// Brightness of the background, 0 to 1.
    pub ground: f32,
    /// Width and height of the picture.
    pub frame: Frame,
}

/// Width and height of a picture, over the side that a model asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// From left to right.
    pub width: f32,
    /// From top to bottom.
    pub height: f32,
}

impl Frame {
    /// A square.
    pub const SQUARE: Self = Self { width: 1.0, height: 1.0 };

    /// A frame whose shorter side is 0.75 to 1.25, and whose longer side is up to twice as long. Frames of several shapes are
    /// wide.
    fn random(rng: &mut impl Rng, shapes: usize) -> Self {
        let shorter = rng.random_range(0.75..1.25);
        let longer = shorter * rng.random_range(1.0..2.0f32);
        match shapes > 1 || rng.random_bool(0.5) {
            true => Self { width: longer, height: shorter },
            false => Self { width: shorter, height: longer },
        }
    }

    fn shorter(self) -> f32 {
        self.width.min(self.height)
    }
}

/// The settings of [`Scenes`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScenesConfig {
    /// Seed of all documents.
    pub seed: u64,
    /// The drawn combinations of shapes.
    pub split: DataSplit,
}

/// A [`DataSource`] of drawn documents.
#[derive(Debug, Clone)]
pub struct Scenes {
    config: ScenesConfig,
    varied: bool,
    next: u64,
}

impl Scene {
    /// A random square scene of one to three shapes of a split.
    pub fn random(rng: &mut impl Rng, split: DataSplit) -> Self {
        Self::framed(rng, split, |_, _| Frame::SQUARE)
    }

    /// A random scene whose picture has any size and proportions.
    pub fn varied(rng: &mut impl Rng, split: DataSplit) -> Self {
        Self::framed(rng, split, Frame::random)
    }

    /// A random scene in the frame that `frame` chooses for its number of shapes.
    fn framed<R: Rng>(rng: &mut R, split: DataSplit, frame: fn(&mut R, usize) -> Frame) -> Self {
        loop {
            let fewest = if split == DataSplit::HeldOut { 2 } else { 1 };
            let count = rng.random_range(fewest..=MAX_SHAPES);
            let frame = frame(rng, count);
            let (columns, rows) = (frame.width / frame.shorter(), frame.height / frame.shorter());
            let width = columns / count as f32;
            let object = |i: usize, rng: &mut dyn rand::RngCore| {
                // As large as fits: three shapes are close together.
                let largest = (0.49 * width).min(0.22);
                let radius = largest * rng.random_range(0.8..1.0);
                let room = (width / 2.0 - radius).min(0.2);
                Object {
                    colour: *Colour::ALL.choose(rng).expect("there are colours"),
                    shape: *Shape::ALL.choose(rng).expect("there are shapes"),
                    x: width * (i as f32 + 0.5) + rng.random_range(-room..room),
                    y: rng.random_range(radius..rows - radius),
                    radius,
                }
            };
            let scene = Self {
                objects: (0..count).map(|i| object(i, rng)).collect(),
                ground: rng.random_range(0.85..1.0),
                frame,
            };
            if scene.split() == split {
                return scene;
            }
        }
    }

    /// The split of its combination of shapes.
    pub fn split(&self) -> DataSplit {
        let code = self.objects.iter().fold(0u64, |code, o| {
            code * 32 + (o.colour as u64) * Shape::ALL.len() as u64 + o.shape as u64 + 1
        });
        // A multiplicative hash spreads similar combinations.
        let spread = code.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let held_out = self.objects.len() > 1 && spread.is_multiple_of(HELD_OUT_ONE_IN);
        if held_out { DataSplit::HeldOut } else { DataSplit::Train }
    }

    /// Its caption, from left to right: `a red ring, a blue square and a black cross`.
    pub fn caption(&self) -> String {
        let named = |o: &Object| format!("a {} {}", o.colour.name(), o.shape.name());
        listed(self.objects.iter().map(named).collect())
    }
}

impl Scenes {
    /// A source that begins at the first document.
    pub fn new(config: ScenesConfig) -> Self {
        Self { config, varied: false, next: 0 }
    }

    /// Draws pictures of any size and proportions instead of squares.
    #[must_use]
    pub fn with_varied_sizes(self, varied: bool) -> Self {
        Self { varied, ..self }
    }

    /// Document `n` of this seed.
    pub fn document(&self, n: u64) -> Document {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        rng.set_stream(2 * n + u64::from(self.config.split == DataSplit::HeldOut));
        let pictures = match rng.random_range(0..10) {
            0..3 => 0,
            3..7 => 1,
            7..9 => rng.random_range(2..4),
            _ => rng.random_range(4..9),
        };
        if pictures == 0 {
            return Document::Plain(vec![DocumentPiece::Text(sums(&mut rng))]);
        }
        let pieces = (0..pictures).flat_map(|_| {
            let scene = match self.varied {
                true => Scene::varied(&mut rng, self.config.split),
                false => Scene::random(&mut rng, self.config.split),
            };
            let caption = format!("{}.", scene.caption());
            [DocumentPiece::Picture(Picture::Drawn(Arc::new(scene))), DocumentPiece::Text(caption)]
        });
        Document::Plain(pieces.collect())
    }
}

/// Names in a sentence: `a, b and c`.
pub(super) fn listed(names: Vec<String>) -> String {
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

/// A text without pictures: up to four sums of shapes, in words.
pub(super) fn sums(rng: &mut ChaCha8Rng) -> String {
    let sentences: Vec<String> = (0..rng.random_range(1..5))
        .map(|_| {
            let (a, b) = (rng.random_range(0..=3usize), rng.random_range(0..=3usize));
            let colour = Colour::ALL.choose(rng).expect("there are colours").name();
            let shape = Shape::ALL.choose(rng).expect("there are shapes").name();
            let (a, b, sum) = (NUMBERS[a], NUMBERS[b], NUMBERS[a + b]);
            format!("{a} and {b} {colour} {shape} make {sum}.")
        })
        .collect();
    sentences.join(" ")
}

impl DataSource for Scenes {
    fn next_document(&mut self) -> Result<Document, DataError> {
        let document = self.document(self.next);
        self.next += 1;
        Ok(document)
    }

    fn position(&self) -> SourcePosition {
        SourcePosition::new(&ScenesPosition { scenes: self.next, seed: self.config.seed })
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        let at: ScenesPosition = position.get()?;
        if at.seed != self.config.seed {
            let what = format!("its scenes have seed {}, not {}", at.seed, self.config.seed);
            return Err(DataError::position(what));
        }
        self.next = at.scenes;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenesPosition {
    scenes: u64,
    seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::picture::PixelSource;

    fn scenes(split: DataSplit) -> Scenes {
        Scenes::new(ScenesConfig { seed: 7, split })
    }

    #[test]
    fn documents_have_no_picture_one_or_several() {
        let counts: Vec<usize> =
            (0..200).map(|n| scenes(DataSplit::Train).document(n).pictures().count()).collect();
        for n in [0, 1, 2, 5] {
            assert!(counts.contains(&n), "no document has {n} pictures");
        }
    }

    #[test]
    fn held_out_combinations_are_never_trained_on() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for split in [DataSplit::Train, DataSplit::HeldOut] {
            assert!((0..500).all(|_| Scene::random(&mut rng, split).split() == split));
        }
        let mut shares = [0, 0];
        for _ in 0..4000 {
            let mut scene = Scene::random(&mut rng, DataSplit::Train);
            scene.objects.iter_mut().for_each(|o| {
                o.colour = *Colour::ALL.choose(&mut rng).unwrap();
            });
            shares[usize::from(scene.split() == DataSplit::HeldOut)] += 1;
        }
        assert!((150..900).contains(&shares[1]), "{shares:?}");
    }

    #[test]
    fn varied_pictures_have_many_sizes_and_show_every_shape_whole() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut sizes = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let scene = Scene::varied(&mut rng, DataSplit::Train);
            let picture = scene.draw(32);
            let size = scene.size(32);
            assert_eq!(picture.dimensions(), (size.width, size.height));
            sizes.insert(picture.dimensions());
            let unit = picture.width().min(picture.height()) as f32;
            for object in &scene.objects {
                let (right, bottom) = (object.x + object.radius, object.y + object.radius);
                assert!(object.x >= object.radius && object.y >= object.radius, "{scene:?}");
                assert!(right * unit <= picture.width() as f32 + 1.0, "{scene:?}");
                assert!(bottom * unit <= picture.height() as f32 + 1.0, "{scene:?}");
            }
        }
        assert!(
            sizes.len() > 100 && sizes.iter().any(|s| s.0 > s.1) && sizes.iter().any(|s| s.0 < s.1)
        );
    }

    #[test]
    fn a_restored_source_continues_where_it_stood() {
        let mut source = scenes(DataSplit::Train);
        (0..5).for_each(|_| drop(source.next_document()));
        let position = source.position();
        let expected = source.next_document().unwrap();
        let mut again = scenes(DataSplit::Train);
        again.restore(&position).unwrap();
        assert_eq!(again.next_document().unwrap(), expected);
        let mut other = Scenes::new(ScenesConfig { seed: 8, split: DataSplit::Train });
        assert!(other.restore(&position).is_err());
    }

    #[test]
    fn captions_name_the_shapes_from_left_to_right() {
        let object = |colour, shape| Object { colour, shape, x: 0.5, y: 0.5, radius: 0.1 };
        let objects = vec![object(Colour::Red, Shape::Ring)];
        let mut scene = Scene { objects, ground: 1.0, frame: Frame::SQUARE };
        assert_eq!(scene.caption(), "a red ring");
        scene.objects.push(object(Colour::Blue, Shape::Cross));
        assert_eq!(scene.caption(), "a red ring and a blue cross");
        scene.objects.push(object(Colour::Black, Shape::Square));
        assert_eq!(scene.caption(), "a red ring, a blue cross and a black square");
    }
}
