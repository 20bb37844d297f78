//! Decodes picture files to RGB as Pillow does, upright and over white.

use std::io::Cursor;

use dip_core::hf::PixelSize;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};

use super::{MAX_SIDE_PX, PictureError, checked_size, guarded, jpeg, whole};

/// Most memory that the decoder of one picture may take, in bytes.
const MAX_DECODER_BYTES: u64 = 1 << 29;
/// The formats that are read.
const FORMATS: [ImageFormat; 6] = [
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::WebP,
    ImageFormat::Gif,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
];

/// The picture of a file. Of several pictures or frames, the first.
pub(super) fn rgb(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    guarded(|| {
        let format = format(bytes)?;
        if whole::is_truncated(bytes, format) {
            return Err(PictureError::broken("the file is cut off"));
        }
        let mut decoder = decoder(bytes, format)?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let rgb = match format {
            ImageFormat::Jpeg => jpeg::decode(bytes)?,
            _ => as_rgb(DynamicImage::from_decoder(decoder).map_err(PictureError::broken)?)?,
        };
        let mut image = DynamicImage::ImageRgb8(rgb);
        image.apply_orientation(orientation);
        Ok(image.into_rgb8())
    })
}

/// Width and height of the upright picture, from the header of its file.
pub(super) fn size(bytes: &[u8]) -> Result<PixelSize, PictureError> {
    guarded(|| {
        let mut decoder = decoder(bytes, format(bytes)?)?;
        let (width, height) = decoder.dimensions();
        Ok(match decoder.orientation().unwrap_or(Orientation::NoTransforms) {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => PixelSize::new(height, width),
            _ => PixelSize::new(width, height),
        })
    })
}

/// As [`size`], of a file that is whole.
pub(super) fn whole_size(bytes: &[u8]) -> Result<PixelSize, PictureError> {
    let format = format(bytes)?;
    if whole::is_truncated(bytes, format) {
        return Err(PictureError::broken("the file is cut off"));
    }
    size(bytes)
}

fn format(bytes: &[u8]) -> Result<ImageFormat, PictureError> {
    match image::guess_format(bytes) {
        Ok(format) if FORMATS.contains(&format) => Ok(format),
        Ok(ImageFormat::Avif) => Err(PictureError::Unsupported("AVIF")),
        Ok(other) => {
            Err(PictureError::Unsupported(other.extensions_str().first().unwrap_or(&"unknown")))
        }
        Err(_) if bytes.get(4..8) == Some(b"ftyp") => Err(PictureError::Unsupported("HEIF")),
        Err(_) if bytes.starts_with(&[0xff, 0x0a]) => Err(PictureError::Unsupported("JPEG XL")),
        Err(error) => Err(PictureError::broken(error)),
    }
}

fn decoder(bytes: &[u8], format: ImageFormat) -> Result<impl ImageDecoder + '_, PictureError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits());
    let decoder = reader.into_decoder().map_err(PictureError::broken)?;
    let (width, height) = decoder.dimensions();
    checked_size(width, height)?;
    Ok(decoder)
}

pub(in crate::data) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE_PX);
    limits.max_image_height = Some(MAX_SIDE_PX);
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    limits
}

/// The picture in RGB. Of 16-bit colours the high byte counts; 16-bit grey is cut to 255, as Pillow converts it.
pub(in crate::data) fn as_rgb(image: DynamicImage) -> Result<RgbImage, PictureError> {
    let high = |value: u16| (value >> 8) as u8;
    let (width, height) = (image.width(), image.height());
    let rgb = match &image {
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => {
            return Err(PictureError::Unsupported("floating point"));
        }
        DynamicImage::ImageLuma16(grey) => RgbImage::from_fn(width, height, |x, y| {
            Rgb([grey.get_pixel(x, y).0[0].min(255) as u8; 3])
        }),
        DynamicImage::ImageRgb16(rgb) => {
            RgbImage::from_fn(width, height, |x, y| Rgb(rgb.get_pixel(x, y).0.map(high)))
        }
        DynamicImage::ImageLumaA16(grey) => RgbImage::from_fn(width, height, |x, y| {
            let [grey, alpha] = grey.get_pixel(x, y).0.map(high);
            over_white([grey, grey, grey, alpha])
        }),
        DynamicImage::ImageRgba16(rgba) => {
            RgbImage::from_fn(width, height, |x, y| over_white(rgba.get_pixel(x, y).0.map(high)))
        }
        other if other.color().has_alpha() => {
            let rgba = image.into_rgba8();
            return Ok(RgbImage::from_fn(width, height, |x, y| over_white(rgba.get_pixel(x, y).0)));
        }
        _ => return Ok(image.into_rgb8()),
    };
    Ok(rgb)
}

fn over_white(rgba: [u8; 4]) -> Rgb<u8> {
    let [r, g, b, a] = rgba.map(u32::from);
    Rgb([r, g, b].map(|c| ((c * a + 255 * (255 - a) + 127) / 255) as u8))
}
