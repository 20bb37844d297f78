//! GIF and animated WebP.

use std::io::Cursor;

use dip_core::hf::{PixelSize, ResizeFilter};
use image::codecs::gif::GifDecoder;
use image::codecs::webp::WebPDecoder;
use image::{
    AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageError, RgbImage, RgbaImage,
};

use super::error::VideoError;
use super::grid::LatentShape;
use crate::data::picture::{as_rgb, checked_size, guarded, limits, resized};

/// Most frames that are read from one file.
const MAX_FRAMES: usize = 1 << 16;
/// Longest delay that browsers do not keep. Files use 0 for as fast as possible.
const LONGEST_IGNORED_S: f64 = 0.01;
/// How long browsers show a frame whose delay they do not keep.
const DEFAULT_FRAME_S: f64 = 0.1;

/// A frame of an animation.
pub(super) struct AnimationFrame {
    pub image: RgbaImage,
    /// How long it is shown.
    pub seconds: f64,
}

/// Shows the frames of a GIF until `see` returns false.
pub(super) fn each_of_gif(
    bytes: &[u8],
    see: &mut dyn FnMut(AnimationFrame) -> Result<bool, VideoError>,
) -> Result<(), VideoError> {
    guarded(|| each(limited(GifDecoder::new(Cursor::new(bytes)))?.into_frames(), see))
}

/// Shows the frames of an animated WebP until `see` returns false.
pub(super) fn each_of_webp(
    bytes: &[u8],
    see: &mut dyn FnMut(AnimationFrame) -> Result<bool, VideoError>,
) -> Result<(), VideoError> {
    guarded(|| each(animated(bytes)?.into_frames(), see))
}

pub(super) fn gif(
    bytes: &[u8],
    shape: &LatentShape,
    most: u32,
) -> Result<Vec<RgbImage>, VideoError> {
    guarded(|| {
        let decoder = limited(GifDecoder::new(Cursor::new(bytes)))?;
        shown(decoder.into_frames(), shape, most)
    })
}

pub(super) fn webp(
    bytes: &[u8],
    shape: &LatentShape,
    most: u32,
) -> Result<Vec<RgbImage>, VideoError> {
    guarded(|| shown(animated(bytes)?.into_frames(), shape, most))
}

fn animated(bytes: &[u8]) -> Result<WebPDecoder<Cursor<&[u8]>>, VideoError> {
    let decoder = limited(WebPDecoder::new(Cursor::new(bytes)))?;
    match decoder.has_animation() {
        true => Ok(decoder),
        false => Err(VideoError::broken("the WebP file is not animated")),
    }
}

fn each(
    frames: Frames<'_>,
    see: &mut dyn FnMut(AnimationFrame) -> Result<bool, VideoError>,
) -> Result<(), VideoError> {
    for frame in frames.take(MAX_FRAMES) {
        let frame = frame.map_err(VideoError::broken)?;
        let (numerator, denominator) = frame.delay().numer_denom_ms();
        let delay = f64::from(numerator) / f64::from(denominator.max(1)) / 1e3;
        let seconds = if delay > LONGEST_IGNORED_S + 1e-6 { delay } else { DEFAULT_FRAME_S };
        if !see(AnimationFrame { image: frame.into_buffer(), seconds })? {
            break;
        }
    }
    Ok(())
}

/// A decoder that checks sizes before it allocates.
fn limited<D: ImageDecoder>(decoder: Result<D, ImageError>) -> Result<D, VideoError> {
    let mut decoder = decoder.map_err(VideoError::broken)?;
    let (width, height) = decoder.dimensions();
    checked_size(width, height)?;
    decoder.set_limits(limits()).map_err(VideoError::broken)?;
    Ok(decoder)
}

/// Returns the frame that is visible at the time of each latent frame.
fn shown(frames: Frames<'_>, shape: &LatentShape, most: u32) -> Result<Vec<RgbImage>, VideoError> {
    let (mut latent, mut end) = (Vec::new(), 0.0);
    each(frames, &mut |frame| {
        end += frame.seconds;
        let count = shape.frames(end).min(most) as usize;
        if latent.len() < count {
            let rgb = as_rgb(DynamicImage::ImageRgba8(frame.image))?;
            // Frames are kept at the size of the latent grid, which is smaller than the file's.
            let patch_px = shape.patch_px().unwrap_or(1);
            let grid = shape.grid(rgb.dimensions(), 1, patch_px);
            let size = PixelSize::new(grid.columns * patch_px, grid.rows * patch_px);
            let small = resized(&rgb, size, ResizeFilter::Bilinear);
            latent.resize(count, small);
        }
        Ok(latent.len() < most as usize)
    })?;
    Ok(latent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::gif::GifEncoder;
    use image::{Delay, Frame, Rgba};

    const SHAPE: LatentShape =
        LatentShape { frames_per_second: 2.0, tokens_per_frame: 4, values: 48, patch: None };

    /// A GIF of frames. Each has a red value and a duration in milliseconds.
    fn gif_file(frames: &[(u8, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = GifEncoder::new(&mut bytes);
        for &(red, ms) in frames {
            let image = RgbaImage::from_pixel(16, 16, Rgba([red, 0, 0, 255]));
            let delay = Delay::from_numer_denom_ms(ms, 1);
            encoder.encode_frame(Frame::from_parts(image, 0, 0, delay)).unwrap();
        }
        drop(encoder);
        bytes
    }

    #[test]
    fn each_latent_frame_shows_the_frame_at_its_time() {
        let bytes = gif_file(&[(10, 400), (90, 200), (170, 1400)]);
        let frames = gif(&bytes, &SHAPE, 99).unwrap();
        let reds: Vec<u8> = frames.iter().map(|f| f.get_pixel(0, 0).0[0]).collect();
        assert_eq!(reds, [10, 90, 170, 170]);
        assert!(frames.iter().all(|f| f.dimensions() == (8, 8)));
        assert_eq!(gif(&bytes, &SHAPE, 2).unwrap().len(), 2);
        // Ten frames without a delay last a second.
        assert_eq!(gif(&gif_file(&[(10, 0); 10]), &SHAPE, 99).unwrap().len(), 2);
    }

    /// The same frames as an animated WebP, built from the chunks of still pictures.
    fn webp_file(frames: &[(u8, u32)]) -> Vec<u8> {
        let chunk = |name: &[u8], body: &[u8]| {
            let length = (body.len() as u32).to_le_bytes();
            [name, &length, body, &vec![0; body.len() % 2]].concat()
        };
        let u24 = |n: u32| n.to_le_bytes()[..3].to_vec();
        let sides = [u24(15), u24(15)].concat();
        let animated = [&[2, 0, 0, 0], &sides[..]].concat();
        let mut body = [b"WEBP".to_vec(), chunk(b"VP8X", &animated), chunk(b"ANIM", &[0; 6])];
        for &(red, ms) in frames {
            let image = RgbImage::from_pixel(16, 16, image::Rgb([red, 0, 0]));
            let mut still = Cursor::new(Vec::new());
            image.write_to(&mut still, image::ImageFormat::WebP).unwrap();
            // The one chunk of pixels follows `RIFF`, the length and `WEBP`.
            let frame = [&[0; 6], &sides[..], &u24(ms), &[0], &still.get_ref()[12..]].concat();
            body[2].extend(chunk(b"ANMF", &frame));
        }
        chunk(b"RIFF", &body.concat())
    }

    #[test]
    fn an_animated_webp_is_read_like_a_gif_and_a_still_webp_is_refused() {
        let frames = webp(&webp_file(&[(10, 400), (90, 200), (170, 1400)]), &SHAPE, 99).unwrap();
        let reds: Vec<u8> = frames.iter().map(|f| f.get_pixel(0, 0).0[0]).collect();
        // Frames are blended over each other, which rounds.
        for (red, expected) in reds.iter().zip([10u8, 90, 170, 170]) {
            assert!(red.abs_diff(expected) < 2, "{reds:?}");
        }
        assert_eq!(reds.len(), 4);
        let mut still = Cursor::new(Vec::new());
        RgbImage::new(16, 16).write_to(&mut still, image::ImageFormat::WebP).unwrap();
        let error = webp(still.get_ref(), &SHAPE, 99).unwrap_err().to_string();
        assert!(error.contains("not animated"), "{error}");
    }

    #[test]
    fn damaged_files_are_refused() {
        let bytes = gif_file(&[(10, 400)]);
        assert!(gif(&bytes[..20], &SHAPE, 9).is_err());
        assert!(webp(&bytes, &SHAPE, 9).is_err());
    }
}
