//! Packing rules choose which waiting document comes next in a sequence.

use std::fmt::Debug;

use crate::data::document::Room;

impl Room {
    /// The room that documents leave which take so much together.
    pub(super) fn without(self, used: Fitting) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(used.tokens),
            images: self.images.saturating_sub(used.images),
            patches: self.patches.saturating_sub(used.patches),
        }
    }
}

/// A waiting document that fits the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fitting {
    /// Its number, in the order of reading.
    pub number: u64,
    /// Its tokens, including image tokens.
    pub tokens: u32,
    /// Its images.
    pub images: u32,
    /// The patches of all its images.
    pub patches: u64,
}

impl Fitting {
    /// No document at all.
    pub(super) const NOTHING: Self = Self { number: 0, tokens: 0, images: 0, patches: 0 };

    /// What two take together.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            number: 0,
            tokens: self.tokens + other.tokens,
            images: self.images + other.images,
            patches: self.patches + other.patches,
        }
    }

    /// What remains of a sum without a part of it.
    pub(super) fn without(self, part: Self) -> Self {
        Self {
            number: 0,
            tokens: self.tokens - part.tokens,
            images: self.images - part.images,
            patches: self.patches - part.patches,
        }
    }

    /// True if it fits a room.
    pub(super) fn fits(&self, room: Room) -> bool {
        self.tokens <= room.tokens && self.images <= room.images && self.patches <= room.patches
    }
}

/// Chooses the documents of a sequence after the first. The first is always the oldest waiting document, so that none waits
/// forever.
///
/// A rule must depend only on its arguments, so that a resumed run gets the same sequences. See [`Loader::with_packing`].
///
/// ```
/// use dip_burn::data::{Fitting, PackingRule, Room};
///
/// /// At most one document with images in a sequence, to keep the encoder's load even.
/// #[derive(Debug)]
/// struct OneOfImages;
///
/// impl PackingRule for OneOfImages {
///     fn name(&self) -> &str {
///         "one-of-images"
///     }
///     fn next(&self, packed: &[Fitting], _room: Room, fitting: &[Fitting]) -> Option<usize> {
///         let has_images = packed.iter().any(|d| d.images > 0);
///         fitting.iter().position(|d| d.images == 0 || !has_images)
///     }
/// }
/// ```
///
/// [`Loader::with_packing`]: crate::data::Loader::with_packing
pub trait PackingRule: Debug + Send + Sync {
    /// Its name. A position saved with one rule is refused by another.
    fn name(&self) -> &str;

    /// The index in `fitting` of the next document; `None`, or an index out of range, closes the sequence.
    ///
    /// `packed` holds the documents of the sequence so far, at least one, and `room` is the room that they leave. `fitting` is
    /// not empty, and the oldest document is first.
    fn next(&self, packed: &[Fitting], room: Room, fitting: &[Fitting]) -> Option<usize>;
}

/// The oldest document that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FirstFit;

impl PackingRule for FirstFit {
    fn name(&self) -> &str {
        "first-fit"
    }

    fn next(&self, _packed: &[Fitting], _room: Room, _fitting: &[Fitting]) -> Option<usize> {
        Some(0)
    }
}

/// The longest document that fits, the oldest of equals: less padding, but documents wait longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BestFit;

impl PackingRule for BestFit {
    fn name(&self) -> &str {
        "best-fit"
    }

    fn next(&self, _packed: &[Fitting], _room: Room, fitting: &[Fitting]) -> Option<usize> {
        (0..fitting.len()).rev().max_by_key(|&i| fitting[i].tokens)
    }
}
