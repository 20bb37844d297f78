//! The embedded video data: one coloured shape that moves over a light ground, and its caption, without end and without files.
//!
//! Clips last from one to three seconds and have several sizes, so that batches vary in work as real ones do. Clip `n` of a seed is
//! always the same.

mod draw;
mod judge;
mod shards;

pub use judge::{SampleMatch, judge};
pub use shards::write_shards;

use std::sync::Arc;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::error::{DataError, SkipCounts};
use super::loader::{DataSource, SourcePosition};
use super::scenes::{Colour, Object, Shape, Split};
use super::video::{CaptionedVideo, Video};

/// Lengths of clips, in seconds. Long ones are rarer.
const SECONDS: [f32; 6] = [1.0, 1.0, 1.0, 2.0, 2.0, 3.0];
/// Widths and heights of clips, in pixels.
pub(crate) const SIZES_PX: [(u32, u32); 3] = [(16, 16), (20, 16), (16, 20)];
/// Farthest that the middle of a way is from that of the picture, as a share of the shorter side: shapes stay inside.
const FROM_MIDDLE: f32 = 0.04;
/// Of so many combinations of colour, shape and direction one is held out.
const HELD_OUT_ONE_IN: u32 = 8;

/// Where a shape moves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Direction {
    Left,
    Right,
    Up,
    Down,
}

/// A shape that crosses the picture. Lengths are shares of the shorter side.
#[derive(Debug, Clone, PartialEq)]
pub struct MovingShape {
    /// The shape at the middle of its way, in the coordinates of the picture: its sides are `width_px` and `height_px` over the
    /// shorter of them.
    pub object: Object,
    /// Where it moves to.
    pub direction: Direction,
    /// How far it moves from the first frame to the end.
    pub distance: f32,
    /// Brightness of the ground, 0 to 1.
    pub ground: f32,
    /// Length.
    pub seconds: f32,
    /// Width, in pixels.
    pub width_px: u32,
    /// Height, in pixels.
    pub height_px: u32,
}

/// What a caption says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Its colour.
    pub colour: Colour,
    /// Its shape.
    pub shape: Shape,
    /// Where it moves to.
    pub direction: Direction,
}

/// Which clips are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MovingConfig {
    /// Seed of all clips.
    pub seed: u64,
    /// Which combinations of colour, shape and direction.
    pub split: Split,
}

/// Draws captioned clips without end.
#[derive(Debug, Clone)]
pub struct MovingShapes {
    config: MovingConfig,
    next: u64,
}

impl Direction {
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

    /// Its unit vector; rows count downwards.
    pub const fn vector(self) -> (f32, f32) {
        match self {
            Self::Left => (-1.0, 0.0),
            Self::Right => (1.0, 0.0),
            Self::Up => (0.0, -1.0),
            Self::Down => (0.0, 1.0),
        }
    }
}

impl Named {
    /// Whether training sees this combination. Held-out ones have no two of their words in common: every colour, shape and
    /// direction is trained on with nearly all others.
    pub fn split(self) -> Split {
        let code = self.colour as u32 + 2 * self.shape as u32 + 3 * self.direction as u32;
        if code.is_multiple_of(HELD_OUT_ONE_IN) { Split::HeldOut } else { Split::Train }
    }

    /// Its caption, as `a red ring moves left`.
    pub fn caption(self) -> String {
        let (colour, shape) = (self.colour.name(), self.shape.name());
        format!("a {colour} {shape} moves {}", self.direction.name())
    }

    /// What a caption of this data says; `None` for any other text.
    pub fn parse(caption: &str) -> Option<Self> {
        let words: Vec<&str> = caption.split_whitespace().collect();
        let ["a", colour, shape, "moves", direction] = words[..] else { return None };
        Some(Self {
            colour: Colour::ALL.into_iter().find(|c| c.name() == colour)?,
            shape: Shape::ALL.into_iter().find(|s| s.name() == shape)?,
            direction: Direction::ALL.into_iter().find(|d| d.name() == direction)?,
        })
    }
}

impl MovingShape {
    /// Draws a clip of a split by lot.
    pub fn random(rng: &mut impl Rng, split: Split) -> Self {
        let named = loop {
            let named = Named {
                colour: *Colour::ALL.choose(rng).expect("there are colours"),
                shape: *Shape::ALL.choose(rng).expect("there are shapes"),
                direction: *Direction::ALL.choose(rng).expect("there are directions"),
            };
            if named.split() == split {
                break named;
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
        let object = Object { colour: named.colour, shape: named.shape, x, y, radius };
        let (direction, ground) = (named.direction, rng.random_range(0.9..1.0));
        Self { object, direction, distance, ground, seconds, width_px, height_px }
    }

    /// What its caption says.
    pub fn named(&self) -> Named {
        let Object { colour, shape, .. } = self.object;
        Named { colour, shape, direction: self.direction }
    }
}

impl MovingShapes {
    /// Clips from the first on.
    pub fn new(config: MovingConfig) -> Self {
        Self { config, next: 0 }
    }

    /// Clip `n` of this seed.
    pub fn clip(&self, n: u64) -> MovingShape {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        rng.set_stream(2 * n + u64::from(self.config.split == Split::HeldOut));
        MovingShape::random(&mut rng, self.config.split)
    }
}

impl DataSource<CaptionedVideo> for MovingShapes {
    fn next_document(&mut self) -> Result<CaptionedVideo, DataError> {
        let clip = self.clip(self.next);
        self.next += 1;
        let caption = clip.named().caption();
        Ok(CaptionedVideo { video: Video::Drawn(Arc::new(clip)), caption })
    }

    fn position(&self) -> SourcePosition {
        SourcePosition::new(&Position { clips: self.next, seed: self.config.seed })
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        let at: Position = position.get()?;
        if at.seed != self.config.seed {
            let what = format!("its clips have seed {}, not {}", at.seed, self.config.seed);
            return Err(DataError::Position { what });
        }
        self.next = at.clips;
        Ok(())
    }

    fn skipped(&self) -> SkipCounts {
        SkipCounts::default()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    clips: u64,
    seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_says_what_is_drawn_and_is_read_back() {
        let source = MovingShapes::new(MovingConfig { seed: 1, split: Split::Train });
        for n in 0..50 {
            let named = source.clip(n).named();
            assert_eq!(Named::parse(&named.caption()), Some(named));
        }
        assert_eq!(Named::parse("a red ring"), None);
    }

    #[test]
    fn held_out_combinations_are_few_and_never_trained_on() {
        let all = Colour::ALL.into_iter().flat_map(|colour| {
            let of = move |shape| {
                Direction::ALL.map(|direction| Named { colour, shape, direction }).into_iter()
            };
            Shape::ALL.into_iter().flat_map(of)
        });
        let held_out: Vec<Named> = all.filter(|n| n.split() == Split::HeldOut).collect();
        assert_eq!(held_out.len(), 12);
        for (i, a) in held_out.iter().enumerate() {
            for b in &held_out[i + 1..] {
                let same = [a.colour == b.colour, a.shape == b.shape, a.direction == b.direction];
                assert!(same.into_iter().filter(|&s| s).count() < 2, "{a:?} {b:?}");
            }
        }
        let source = MovingShapes::new(MovingConfig { seed: 1, split: Split::HeldOut });
        assert!((0..50).all(|n| source.clip(n).named().split() == Split::HeldOut));
    }
}
