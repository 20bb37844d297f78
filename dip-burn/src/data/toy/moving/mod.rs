//! An endless supply of captioned clips: one coloured shape moves over a light background.
//!
//! Clips last from one to three seconds and have several sizes. So batches vary in work like real batches.

mod draw;
mod match_clip;
mod shards;

pub use match_clip::{SampleMatch, match_clip};
pub use shards::write_moving_shards;

use std::fmt;
use std::sync::Arc;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::shape::{Colour, DataSplit, Object, Shape};
use crate::data::error::DataError;
use crate::data::source::{DataSource, SourcePosition};
use crate::data::video::{CaptionedVideo, Video};

/// Lengths of clips, in seconds; short clips are more frequent.
const SECONDS: [f32; 6] = [1.0, 1.0, 1.0, 2.0, 2.0, 3.0];
/// Widths and heights of clips, in pixels.
const SIZES_PX: [(u32, u32); 3] = [(16, 16), (20, 16), (16, 20)];
/// Largest distance between the middle of the path and the middle of the picture, as a fraction of the shorter side. Shapes stay
/// inside.
const FROM_MIDDLE: f32 = 0.04;
/// One combination of colour, shape and direction in this many is held out.
const HELD_OUT_ONE_IN: u32 = 8;

/// The direction in which a shape moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Motion {
    Left,
    Right,
    Up,
    Down,
}

/// A clip of one shape that crosses the picture. Lengths are fractions of the shorter side.
#[derive(Debug, Clone, PartialEq)]
pub struct MovingShape {
    /// The shape at the middle of its path.
    pub object: Object,
    /// The direction in which it moves.
    pub direction: Motion,
    /// Distance from its first place to its last.
    pub distance: f32,
    /// Brightness of the background, 0 to 1.
    pub ground: f32,
    /// Length of the clip, in seconds.
    pub seconds: f32,
    /// Width, in pixels.
    pub width_px: u32,
    /// Height, in pixels.
    pub height_px: u32,
}

/// The caption of a clip; its text is for example `a red ring moves left`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipCaption {
    /// Colour of the shape.
    pub colour: Colour,
    /// The shape.
    pub shape: Shape,
    /// The direction in which it moves.
    pub direction: Motion,
}

/// The settings of [`MovingShapes`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MovingConfig {
    /// Seed of all clips.
    pub seed: u64,
    /// The drawn combinations of colour, shape and direction.
    pub split: DataSplit,
}

/// A [`DataSource`] of drawn clips with captions.
#[derive(Debug, Clone)]
pub struct MovingShapes {
    config: MovingConfig,
    next: u64,
}

impl Motion {
    /// Every direction.
    pub const ALL: [Self; 4] = [Self::Left, Self::Right, Self::Up, Self::Down];

    /// Its name in captions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// Its unit vector; y points downwards.
    pub const fn vector(self) -> (f32, f32) {
        match self {
            Self::Left => (-1.0, 0.0),
            Self::Right => (1.0, 0.0),
            Self::Up => (0.0, -1.0),
            Self::Down => (0.0, 1.0),
        }
    }
}

impl ClipCaption {
    /// The split of this combination. No two held-out captions share more than one of colour, shape and direction, so training
    /// sees each of them with nearly all others.
    pub fn split(self) -> DataSplit {
        let code = self.colour as u32 + 2 * self.shape as u32 + 3 * self.direction as u32;
        if code.is_multiple_of(HELD_OUT_ONE_IN) { DataSplit::HeldOut } else { DataSplit::Train }
    }

    /// Reads the text of a caption; `None` for any other text.
    pub fn parse(caption: &str) -> Option<Self> {
        let words: Vec<&str> = caption.split_whitespace().collect();
        let ["a", colour, shape, "moves", direction] = words[..] else { return None };
        Some(Self {
            colour: Colour::ALL.into_iter().find(|c| c.name() == colour)?,
            shape: Shape::ALL.into_iter().find(|s| s.name() == shape)?,
            direction: Motion::ALL.into_iter().find(|d| d.name() == direction)?,
        })
    }
}

impl fmt::Display for ClipCaption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (colour, shape) = (self.colour.name(), self.shape.name());
        write!(f, "a {colour} {shape} moves {}", self.direction.name())
    }
}

impl MovingShape {
    /// A random clip of a split.
    pub fn random(rng: &mut impl Rng, split: DataSplit) -> Self {
        let caption = loop {
            let caption = ClipCaption {
                colour: *Colour::ALL.choose(rng).expect("there are colours"),
                shape: *Shape::ALL.choose(rng).expect("there are shapes"),
                direction: *Motion::ALL.choose(rng).expect("there are directions"),
            };
            if caption.split() == split {
                break caption;
            }
        };
        let (width_px, height_px) = *SIZES_PX.choose(rng).expect("there are sizes");
        let seconds = *SECONDS.choose(rng).expect("there are lengths");
        let short = width_px.min(height_px) as f32;
        let radius = rng.random_range(0.26..0.28);
        let distance = rng.random_range(0.34..0.36);
        let mut middle = |side_px: u32| {
            side_px as f32 / short / 2.0 + rng.random_range(-FROM_MIDDLE..FROM_MIDDLE)
        };
        let (x, y) = (middle(width_px), middle(height_px));
        let object = Object { colour: caption.colour, shape: caption.shape, x, y, radius };
        let (direction, ground) = (caption.direction, rng.random_range(0.9..1.0));
        Self { object, direction, distance, ground, seconds, width_px, height_px }
    }

    /// Its caption.
    pub fn caption(&self) -> ClipCaption {
        let Object { colour, shape, .. } = self.object;
        ClipCaption { colour, shape, direction: self.direction }
    }
}

impl MovingShapes {
    /// A source that begins at the first clip.
    pub fn new(config: MovingConfig) -> Self {
        Self { config, next: 0 }
    }

    /// Clip `n` of this seed.
    pub fn clip(&self, n: u64) -> MovingShape {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        rng.set_stream(2 * n + u64::from(self.config.split == DataSplit::HeldOut));
        MovingShape::random(&mut rng, self.config.split)
    }
}

impl DataSource<CaptionedVideo> for MovingShapes {
    fn next_document(&mut self) -> Result<CaptionedVideo, DataError> {
        let clip = self.clip(self.next);
        self.next += 1;
        let caption = clip.caption().to_string();
        Ok(CaptionedVideo { video: Video::Drawn(Arc::new(clip)), caption })
    }

    fn position(&self) -> SourcePosition {
        SourcePosition::new(&MovingPosition { clips: self.next, seed: self.config.seed })
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        let at: MovingPosition = position.get()?;
        if at.seed != self.config.seed {
            let what = format!("its clips have seed {}, not {}", at.seed, self.config.seed);
            return Err(DataError::position(what));
        }
        self.next = at.clips;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MovingPosition {
    clips: u64,
    seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_caption_is_read_back() {
        let source = MovingShapes::new(MovingConfig { seed: 1, split: DataSplit::Train });
        for n in 0..50 {
            let caption = source.clip(n).caption();
            assert_eq!(ClipCaption::parse(&caption.to_string()), Some(caption));
        }
        assert_eq!(ClipCaption::parse("a red ring"), None);
    }

    #[test]
    fn held_out_combinations_are_few_and_never_trained_on() {
        let all = Colour::ALL.into_iter().flat_map(|colour| {
            let of = move |shape| {
                Motion::ALL.map(|direction| ClipCaption { colour, shape, direction }).into_iter()
            };
            Shape::ALL.into_iter().flat_map(of)
        });
        let held_out: Vec<ClipCaption> = all.filter(|n| n.split() == DataSplit::HeldOut).collect();
        assert_eq!(held_out.len(), 12);
        for (i, a) in held_out.iter().enumerate() {
            for b in &held_out[i + 1..] {
                let same = [a.colour == b.colour, a.shape == b.shape, a.direction == b.direction];
                assert!(same.into_iter().filter(|&s| s).count() < 2, "{a:?} {b:?}");
            }
        }
        let source = MovingShapes::new(MovingConfig { seed: 1, split: DataSplit::HeldOut });
        assert!((0..50).all(|n| source.clip(n).caption().split() == DataSplit::HeldOut));
    }
}
