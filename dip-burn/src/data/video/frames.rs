//! Frames of videos by number, in their own size, for vision-language models.

use std::sync::Arc;

use dip_core::hf::PixelSize;
use image::{DynamicImage, RgbImage};

use super::error::VideoError;
use super::{Video, animation, ffmpeg};
use crate::data::encoded::{FrameInfo, VideoFacts};
use crate::data::picture::as_rgb;

/// Frames per second that a drawn video is asked for.
const DRAWN_PER_SECOND: f64 = 24.0;
/// Most frames of a drawn video.
const MAX_DRAWN_FRAMES: f64 = 65_536.0;

/// Refuses a video without frames or length.
fn checked(info: FrameInfo) -> Result<FrameInfo, VideoError> {
    if info.has_frames() { Ok(info) } else { Err(no_frames()) }
}

impl Video {
    /// Number, rate and size of its frames. A drawn video and drawn pictures are asked for `drawn_px` x `drawn_px`.
    ///
    /// # Errors
    /// [`VideoError`] for a damaged file, and for latents, which have no frames.
    pub fn frame_info(&self, drawn_px: u32) -> Result<FrameInfo, VideoError> {
        let info = match self {
            Self::Drawn(source) => {
                let frames = (source.seconds() * DRAWN_PER_SECOND).clamp(1.0, MAX_DRAWN_FRAMES);
                let first = source.frames(1)?;
                let first = first.first().ok_or_else(no_frames)?;
                let size = PixelSize::new(first.width(), first.height());
                FrameInfo { frames: frames as u32, per_second: DRAWN_PER_SECOND, size }
            }
            Self::Gif(file) | Self::WebP(file) | Self::Ffmpeg(file) => {
                let known = &file.facts().video;
                match known.get() {
                    Some(found) => found.info,
                    None => {
                        let found = self.counted(&file.bytes()?)?;
                        known.get_or_init(|| found).info
                    }
                }
            }
            Self::Frames { pictures, per_second } => {
                let size = pictures.first().ok_or_else(no_frames)?.size(drawn_px)?;
                FrameInfo { frames: pictures.len() as u32, per_second: *per_second, size }
            }
            Self::Latents(_) => return Err(latents()),
        };
        checked(info)
    }

    /// Counts the frames of its file.
    fn counted(&self, bytes: &[u8]) -> Result<VideoFacts, VideoError> {
        if let Self::Ffmpeg(_) = self {
            let info = checked(ffmpeg::info(bytes)?)?;
            return Ok(VideoFacts { info, seconds: f64::from(info.frames) / info.per_second });
        }
        let (mut found, mut seconds) = (None, 0.0);
        self.each_frame(bytes, &mut |frame| {
            let size = PixelSize::new(frame.image.width(), frame.image.height());
            let (frames, _) = found.map_or((0, size), |found| found);
            found = Some((frames + 1, size));
            seconds += frame.seconds;
            Ok(true)
        })?;
        let (frames, size) = found.ok_or_else(no_frames)?;
        let info = FrameInfo { frames, per_second: f64::from(frames) / seconds, size };
        let info = checked(info)?;
        Ok(VideoFacts { info, seconds })
    }

    /// Gives `see` the frames with these numbers, which ascend, one by one. `info` is what [`frame_info`](Self::frame_info) says.
    ///
    /// # Errors
    /// [`VideoError`] for a damaged file, if it has fewer frames, and any error of `see`.
    pub fn each_frame_at(
        &self,
        numbers: &[u32],
        info: &FrameInfo,
        drawn_px: u32,
        see: &mut dyn FnMut(RgbImage) -> Result<(), VideoError>,
    ) -> Result<(), VideoError> {
        let mut seen = 0;
        let mut see = |frame: RgbImage| {
            seen += 1;
            see(frame)
        };
        match self {
            Self::Drawn(source) => {
                let all = source.frames(info.frames)?;
                let frames = numbers.iter().filter_map(|&number| all.get(number as usize));
                frames.cloned().try_for_each(&mut see)?;
            }
            Self::Gif(file) | Self::WebP(file) => {
                let (mut number, mut wanted) = (0, numbers.iter().peekable());
                self.each_frame(&file.bytes()?, &mut |frame| {
                    if wanted.peek() == Some(&&number) {
                        let rgb = as_rgb(DynamicImage::ImageRgba8(frame.image))?;
                        while wanted.next_if_eq(&&number).is_some() {
                            see(rgb.clone())?;
                        }
                    }
                    number += 1;
                    Ok(wanted.peek().is_some())
                })?;
            }
            Self::Ffmpeg(file) => {
                ffmpeg::each_frame_at(&file.bytes()?, numbers, info, &mut see)?;
            }
            Self::Frames { pictures, .. } => {
                for &number in numbers {
                    let picture = pictures.get(number as usize).ok_or_else(no_frames)?;
                    see(picture.rgb(drawn_px)?)?;
                }
            }
            Self::Latents(_) => return Err(latents()),
        }
        match seen == numbers.len() {
            true => Ok(()),
            false => Err(VideoError::broken("it has fewer frames than its header says")),
        }
    }

    /// Shows the frames of an animation until `see` returns false.
    fn each_frame(
        &self,
        bytes: &[u8],
        see: &mut dyn FnMut(animation::AnimationFrame) -> Result<bool, VideoError>,
    ) -> Result<(), VideoError> {
        match self {
            Self::Gif(_) => animation::each_of_gif(bytes, see),
            Self::WebP(_) => animation::each_of_webp(bytes, see),
            _ => Ok(()),
        }
    }
}

fn no_frames() -> VideoError {
    VideoError::broken("it has no frames")
}

fn latents() -> VideoError {
    VideoError::broken("latents of an autoencoder have no frames; give the video itself")
}

impl PartialEq for Video {
    /// Videos are equal if their bytes or pictures are equal; drawn videos, if they are the same.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Drawn(a), Self::Drawn(b)) => Arc::ptr_eq(a, b),
            (Self::Gif(a), Self::Gif(b))
            | (Self::WebP(a), Self::WebP(b))
            | (Self::Ffmpeg(a), Self::Ffmpeg(b))
            | (Self::Latents(a), Self::Latents(b)) => a == b,
            (
                Self::Frames { pictures: a, per_second: x },
                Self::Frames { pictures: b, per_second: y },
            ) => a == b && x == y,
            _ => false,
        }
    }
}
