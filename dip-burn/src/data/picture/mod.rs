//! Pictures before they are decoded.

mod decode;
mod jpeg;
mod resample;
mod whole;

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use dip_core::hf::PixelSize;
use image::RgbImage;
use thiserror::Error;

pub(super) use decode::{as_rgb, limits};
pub(super) use resample::resized;

use super::encoded::Encoded;
use super::error::{BoxError, DataError};
use super::skip::SkipReason;

/// Longest side of a picture that is decoded, in pixels.
const MAX_SIDE_PX: u32 = 16_384;
/// Most pixels of a picture that is decoded.
const MAX_PIXELS: u64 = 1 << 26;
/// Side at which drawn pictures are compared, in pixels.
const COMPARED_PX: u32 = 64;

/// A picture before it is decoded; cheap to clone.
#[derive(Debug, Clone)]
pub enum Picture {
    /// The bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF file. Of several pictures or frames, the first counts.
    Encoded(Encoded),
    /// A picture whose pixels are drawn when they are needed.
    Drawn(Arc<dyn PixelSource>),
}

/// Makes the pixels of a picture.
///
/// Implement it for pictures that are rendered, fetched from elsewhere, or stored in your own format.
pub trait PixelSource: Debug + Send + Sync {
    /// Width and height of the pixels that [`rgb`](Self::rgb) will give for the same `side_px`.
    fn size(&self, side_px: u32) -> PixelSize {
        PixelSize::square(side_px)
    }

    /// The pixels for a model whose typical pictures have `side_px` x `side_px`. The model's processor scales them.
    ///
    /// # Errors
    /// [`PictureError`] if there are no pixels; the picture is then grey and its document has no loss.
    fn rgb(&self, side_px: u32) -> Result<RgbImage, PictureError>;
}

/// A picture without usable pixels.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The file is damaged or of an unknown format.
    #[error("the picture cannot be decoded: {0}; JPEG, PNG, WebP, GIF, BMP and TIFF are read")]
    Broken(#[source] BoxError),
    /// Its file can no longer be read.
    #[error(transparent)]
    Unreadable(#[from] Box<DataError>),
    /// The format is known, but not read.
    #[error("the picture is {0}, which is not read; convert it to JPEG, PNG or WebP")]
    Unsupported(&'static str),
    /// The vision encoder does not take a picture of this shape.
    #[error("the picture has {} x {} pixels, but must have {limit}; crop it", size.width, size.height)]
    Unfit {
        /// Its size.
        size: PixelSize,
        /// What the encoder takes.
        limit: &'static str,
    },
    /// The picture is over a limit.
    #[error(
        "the picture has {width} x {height} pixels, but at most {MAX_SIDE_PX} a side and {MAX_PIXELS} in all are decoded; scale it down"
    )]
    Oversized {
        /// Width, in pixels.
        width: u32,
        /// Height, in pixels.
        height: u32,
    },
}

impl From<DataError> for PictureError {
    fn from(error: DataError) -> Self {
        Self::Unreadable(Box::new(error))
    }
}

impl PictureError {
    /// A [`PictureError::Broken`] with its reason.
    pub fn broken(reason: impl Into<BoxError>) -> Self {
        Self::Broken(reason.into())
    }

    /// The reason for which a sample with this picture is skipped.
    pub fn reason(&self) -> SkipReason {
        match self {
            Self::Broken(_) | Self::Unreadable(_) => SkipReason::BrokenPicture,
            Self::Unsupported(_) => SkipReason::UnsupportedPicture,
            Self::Unfit { .. } => SkipReason::UnfitPicture,
            Self::Oversized { .. } => SkipReason::Oversized,
        }
    }
}

impl Picture {
    /// Checks format and size of an encoded picture, and that its file is whole, without decoding it.
    ///
    /// # Errors
    /// [`PictureError`] if [`Picture::rgb`] would certainly fail.
    pub fn check(&self) -> Result<(), PictureError> {
        let Self::Encoded(file) = self else { return Ok(()) };
        let known = &file.facts().picture;
        if known.get().is_none() {
            let _ = known.set(decode::whole_size(&file.bytes()?)?);
        }
        Ok(())
    }

    /// The same with the bytes of its file in memory.
    ///
    /// # Errors
    /// [`DataError`] names a file that can no longer be read.
    pub(super) fn loaded(&self) -> Result<Self, DataError> {
        match self {
            Self::Encoded(file) => Ok(Self::Encoded(file.loaded()?)),
            Self::Drawn(_) => Ok(self.clone()),
        }
    }

    /// Its size when upright, without decoding it. A drawn picture is asked for `drawn_px` x `drawn_px`.
    ///
    /// # Errors
    /// [`PictureError`] for a damaged header or an oversized picture.
    pub fn size(&self, drawn_px: u32) -> Result<PixelSize, PictureError> {
        match self {
            Self::Encoded(file) => match file.facts().picture.get() {
                Some(&size) => Ok(size),
                None => decode::size(&file.bytes()?),
            },
            Self::Drawn(source) => Ok(source.size(drawn_px)),
        }
    }

    /// The picture in its own size, upright, transparency over white. A drawn picture is asked for `drawn_px` x `drawn_px`.
    ///
    /// # Errors
    /// [`PictureError`] for a damaged or oversized file.
    pub fn rgb(&self, drawn_px: u32) -> Result<RgbImage, PictureError> {
        match self {
            Self::Encoded(file) => decode::rgb(&file.bytes()?),
            Self::Drawn(source) => source.rgb(drawn_px),
        }
    }
}

impl PartialEq for Picture {
    /// Encoded pictures are equal if their bytes are equal; drawn pictures, if they draw the same pixels or both draw none.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Encoded(a), Self::Encoded(b)) => a == b,
            (Self::Drawn(a), Self::Drawn(b)) => {
                Arc::ptr_eq(a, b) || a.rgb(COMPARED_PX).ok() == b.rgb(COMPARED_PX).ok()
            }
            _ => false,
        }
    }
}

/// Checks a size before anything is allocated for it.
pub(super) fn checked_size(width: u32, height: u32) -> Result<(), PictureError> {
    let pixels = u64::from(width) * u64::from(height);
    if width > MAX_SIDE_PX || height > MAX_SIDE_PX || pixels > MAX_PIXELS {
        return Err(PictureError::Oversized { width, height });
    }
    if pixels == 0 {
        return Err(PictureError::broken("it has no pixels"));
    }
    Ok(())
}

/// Runs a decoder; a panic means that the picture is broken.
pub(super) fn guarded<T, E: From<PictureError>>(
    decode: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let panicked = |_| Err(PictureError::broken("its decoder panicked").into());
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(panicked)
}

#[cfg(test)]
mod tests;
