//! Which waiting document follows in a sequence: the hook for packing of one's own.

use std::fmt::Debug;

/// What is left of a sequence that is being packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Tokens, those of images included.
    pub tokens: u32,
    /// Images.
    pub images: u32,
}

/// A waiting document that fits in the room that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fitting {
    /// Its number, which grows with every document read.
    pub number: u64,
    /// Its tokens, those of images included.
    pub tokens: u32,
    /// Its images.
    pub images: u32,
}

/// Chooses the documents of a sequence behind the first, which is always the oldest that waits, so that none waits forever.
///
/// A rule must depend on its arguments alone: resumed runs then get the same sequences. See [`Loader::with_packing`].
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
    /// Its name. A position saved under one name is refused under another.
    fn name(&self) -> &str;

    /// The place in `fitting` of the document that comes next; `None`, or a place outside, closes the sequence.
    ///
    /// `packed` holds the documents of the sequence so far, at least one; `room` is what they leave; `fitting` is not empty and
    /// has the oldest document first.
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

/// The document that fills most of the room, the oldest of equals: less padding, longer waiting.
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
