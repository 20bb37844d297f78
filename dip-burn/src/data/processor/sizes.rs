//! Sizes of resized pictures. The arithmetic is that of the Python processors, floating point included.

use dip_core::hf::{NativeRule, PixelSize};

use crate::data::PictureError;

/// Largest ratio of the sides of a picture in its own proportions.
const MAX_RATIO: u32 = 200;
/// Longest side of a split picture, in pixels.
const MAX_SPLIT_PX: u32 = 4096;

/// The size of a picture in its own proportions: multiples of a merged patch, between the fewest and the most pixels.
pub(super) fn native(size: PixelSize, rule: &NativeRule) -> Result<PixelSize, PictureError> {
    let (short, long) = sorted(size);
    if f64::from(long) / f64::from(short) > f64::from(MAX_RATIO) {
        return Err(PictureError::Unfit { size, limit: "sides with a ratio of at most 200" });
    }
    let factor = f64::from(rule.patch_px * rule.merge);
    let [width, height] = [size.width, size.height].map(f64::from);
    let nearest = |side: f64| (side / factor).round_ties_even() * factor;
    let (mut w, mut h) = (nearest(width), nearest(height));
    if h * w > rule.max_pixels as f64 {
        let beta = (height * width / rule.max_pixels as f64).sqrt();
        let fit = |side: f64| factor.max((side / beta / factor).floor() * factor);
        (w, h) = (fit(width), fit(height));
    } else if h * w < rule.min_pixels as f64 {
        let beta = (rule.min_pixels as f64 / (height * width)).sqrt();
        let fit = |side: f64| (side * beta / factor).ceil() * factor;
        (w, h) = (fit(width), fit(height));
    }
    Ok(PixelSize::new(w as u32, h as u32))
}

/// The size with a shorter side of `side`.
pub(super) fn with_shorter_side(size: PixelSize, side: u32) -> PixelSize {
    let (short, long) = sorted(size);
    let scaled = f64::from(u64::from(side) as u32) * f64::from(long) / f64::from(short);
    let long = scaled.min(f64::from(u32::MAX)) as u32;
    if size.width <= size.height { PixelSize::new(side, long) } else { PixelSize::new(long, side) }
}

/// The largest size in the proportions of `size` that fits into `target`.
pub(super) fn fitted(size: PixelSize, target: PixelSize) -> PixelSize {
    let scale_w = f64::from(target.width) / f64::from(size.width);
    let scale_h = f64::from(target.height) / f64::from(size.height);
    if scale_w < scale_h {
        let height = (f64::from(size.height) * scale_w).ceil() as u32;
        PixelSize::new(target.width, height.min(target.height))
    } else {
        let width = (f64::from(size.width) * scale_h).ceil() as u32;
        PixelSize::new(width.min(target.width), target.height)
    }
}

/// The size, of those given, that keeps the most pixels of the picture, and of these the one with the least padding.
pub(super) fn best_of(size: PixelSize, sizes: &[PixelSize]) -> Option<PixelSize> {
    let (mut best, mut most, mut least_waste) = (None, 0, u64::MAX);
    for &candidate in sizes {
        let scale_w = f64::from(candidate.width) / f64::from(size.width);
        let scale_h = f64::from(candidate.height) / f64::from(size.height);
        let scale = scale_w.min(scale_h);
        let [width, height] =
            [size.width, size.height].map(|side| (f64::from(side) * scale) as u64);
        let kept = (width * height).min(size.pixels());
        let waste = candidate.pixels().saturating_sub(kept);
        if kept > most || (kept == most && waste < least_waste) {
            (best, most, least_waste) = (Some(candidate), kept, waste);
        }
    }
    best
}

/// The size of a split picture before it is made a multiple of the tiles.
pub(super) fn with_longer_side(size: PixelSize, side: u32) -> PixelSize {
    let ratio = f64::from(size.width) / f64::from(size.height);
    let even = |side: u32| side + side % 2;
    let scaled = if size.width >= size.height {
        PixelSize::new(side, even((f64::from(side) / ratio) as u32).max(1))
    } else {
        PixelSize::new(even((f64::from(side) * ratio) as u32).max(1), side)
    };
    let ratio = f64::from(scaled.width) / f64::from(scaled.height);
    let limit = f64::from(MAX_SPLIT_PX);
    if scaled.width >= scaled.height && scaled.width > MAX_SPLIT_PX {
        PixelSize::new(MAX_SPLIT_PX, ((limit / ratio) as u32).max(1))
    } else if scaled.height > scaled.width && scaled.height > MAX_SPLIT_PX {
        PixelSize::new(((limit * ratio) as u32).max(1), MAX_SPLIT_PX)
    } else {
        scaled
    }
}

/// The size of a split picture: multiples of the side of a tile.
pub(super) fn in_tiles(size: PixelSize, side: u32) -> PixelSize {
    let ratio = f64::from(size.width) / f64::from(size.height);
    let whole = |n: u32| n.div_ceil(side) * side;
    if size.width >= size.height {
        let width = whole(size.width);
        PixelSize::new(width, whole((f64::from(width) / ratio) as u32))
    } else {
        let height = whole(size.height);
        PixelSize::new(whole((f64::from(height) * ratio) as u32), height)
    }
}

fn sorted(size: PixelSize) -> (u32, u32) {
    (size.width.min(size.height), size.width.max(size.height))
}
