//! Pictures before they are decoded.

mod whole;

use std::fmt::Debug;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use image::imageops::{FilterType, resize};
use image::{DynamicImage, ImageReader, Limits, Rgb, RgbImage};
use thiserror::Error;

use super::error::BoxError;

/// Longest side of a picture that is decoded, in pixels.
const MAX_SIDE_PX: u32 = 16_384;
/// Most pixels of a picture that is decoded.
const MAX_PIXELS: u64 = 1 << 26;
/// Most memory that the decoder of one picture may take, in bytes.
const MAX_DECODER_BYTES: u64 = 1 << 29;
/// Side at which drawn pictures are compared, in pixels.
const COMPARED_PX: u32 = 64;

/// A picture before it is decoded; cheap to clone.
#[derive(Debug, Clone)]
pub enum Picture {
    /// The bytes of a JPEG, PNG or WebP file.
    Encoded(Arc<[u8]>),
    /// A picture whose pixels are drawn when they are needed.
    Drawn(Arc<dyn PixelSource>),
}

/// Makes the pixels of a picture.
///
/// Implement it for pictures that are rendered, fetched from elsewhere, or stored in your own format.
pub trait PixelSource: Debug + Send + Sync {
    /// Width and height of the pixels that [`rgb`](Self::rgb) will give for the same `side_px`.
    fn size(&self, side_px: u32) -> (u32, u32) {
        (side_px, side_px)
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
    #[error("the picture cannot be decoded: {0}; JPEG, PNG and WebP are read")]
    Broken(#[source] BoxError),
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

impl PictureError {
    /// A [`PictureError::Broken`] with its reason.
    pub fn broken(reason: impl Into<BoxError>) -> Self {
        Self::Broken(reason.into())
    }
}

impl Picture {
    /// Checks format and size of an encoded picture, and that its file is whole, without decoding it.
    ///
    /// # Errors
    /// [`PictureError`] if [`Picture::pixels`] would certainly fail, or would fill a missing part with grey.
    pub fn check(&self) -> Result<(), PictureError> {
        let Self::Encoded(bytes) = self else { return Ok(()) };
        guarded(|| {
            let reader = reader(bytes)?;
            if reader.format().is_some_and(|format| whole::is_truncated(bytes, format)) {
                return Err(PictureError::broken("the file is cut off"));
            }
            let (width, height) = reader.into_dimensions().map_err(PictureError::broken)?;
            checked_size(width, height)
        })
    }

    /// Width and height in pixels, without decoding it. A drawn picture is asked for `drawn_px` x `drawn_px`.
    ///
    /// # Errors
    /// [`PictureError`] for a damaged header or an oversized picture.
    pub fn size(&self, drawn_px: u32) -> Result<(u32, u32), PictureError> {
        match self {
            Self::Encoded(bytes) => guarded(|| {
                let size = reader(bytes)?.into_dimensions().map_err(PictureError::broken)?;
                checked_size(size.0, size.1)?;
                Ok(size)
            }),
            Self::Drawn(source) => Ok(source.size(drawn_px)),
        }
    }

    /// The picture in its own size, transparency over white. A drawn picture is asked for `drawn_px` x `drawn_px`.
    ///
    /// # Errors
    /// [`PictureError`] for a damaged or oversized file.
    pub fn rgb(&self, drawn_px: u32) -> Result<RgbImage, PictureError> {
        match self {
            Self::Encoded(bytes) => decoded(bytes),
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

fn decoded(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    guarded(|| {
        let (width, height) = reader(bytes)?.into_dimensions().map_err(PictureError::broken)?;
        checked_size(width, height)?;
        let image = reader(bytes)?.decode().map_err(PictureError::broken)?;
        Ok(over_white(&image))
    })
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

fn reader(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, PictureError> {
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(PictureError::broken)?;
    reader.limits(decoder_limits());
    Ok(reader)
}

pub(super) fn decoder_limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE_PX);
    limits.max_image_height = Some(MAX_SIDE_PX);
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    limits
}

pub(super) fn over_white(image: &DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.to_rgb8();
    }
    let rgba = image.to_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0.map(u32::from);
        Rgb([r, g, b].map(|c| ((c * a + 255 * (255 - a) + 127) / 255) as u8))
    })
}

/// The picture at `width` x `height`.
pub(super) fn scaled(rgb: &RgbImage, width: u32, height: u32) -> RgbImage {
    if rgb.dimensions() == (width, height) {
        return rgb.clone();
    }
    resize(rgb, width, height, FilterType::Triangle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::ImageFormat;

    fn png(image: DynamicImage) -> Picture {
        let mut bytes = Vec::new();
        image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        Picture::Encoded(bytes.into())
    }

    #[test]
    fn transparency_becomes_white() {
        let clear = image::RgbaImage::from_pixel(3, 3, image::Rgba([9, 9, 9, 0]));
        let rgb = png(DynamicImage::ImageRgba8(clear)).rgb(3).unwrap();
        assert!(rgb.pixels().all(|pixel| pixel.0 == [255; 3]));
    }

    #[test]
    fn files_that_are_cut_off_are_refused() {
        let image = DynamicImage::ImageRgb8(RgbImage::from_fn(40, 30, |x, y| {
            Rgb([(x * y) as u8, (7 * x) as u8, (5 * y) as u8])
        }));
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            let mut bytes = Vec::new();
            image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
            let check = |bytes: &[u8]| Picture::Encoded(bytes.into()).check();
            check(&bytes).unwrap();
            // Some cameras append their own data.
            check(&[&bytes[..], &[0; 10]].concat()).unwrap();
            for kept in [bytes.len() / 3, bytes.len() - 3] {
                let error = check(&bytes[..kept]).unwrap_err().to_string();
                assert!(error.contains("cut off"), "{format:?}, {kept}: {error}");
            }
        }
    }

    #[test]
    fn damaged_and_oversized_files_are_refused_with_a_reason() {
        let damaged = Picture::Encoded(b"not a picture".to_vec().into());
        assert!(damaged.check().unwrap_err().to_string().contains("JPEG, PNG and WebP"));
        let wide = png(DynamicImage::ImageLuma8(image::GrayImage::new(MAX_SIDE_PX + 1, 1)));
        assert!(wide.check().is_err());
        assert!(wide.rgb(4).is_err() && wide.size(4).is_err());
    }
}
