//! Which frames of a video a vision-language model sees, and at which size.

use dip_core::hf::{NativeRule, PixelSize, VideoProcessorConfig};
use serde::Serialize;

use super::{ImageProcessor, sizes};
use crate::batch::{Image, ImageLayout, View, ViewGrid};
use crate::data::picture::resized;
use crate::data::video::{FrameInfo, Video, VideoError};
use crate::data::visual::Visual;

/// Merged patches of a frame, at least and at most, in pixels of their squares.
const MIN_TOKENS: u64 = 128;
const MAX_TOKENS: u64 = 768;

/// How frames are chosen and scaled.
///
/// As in the video processor of Qwen2-VL: `per_second` evenly spaced frames for every second, at least `min_frames` and at most
/// `max_frames`, an even number. A frame keeps its proportions; its sides are multiples of the square that becomes a token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct VideoRule {
    /// Frames per second.
    pub per_second: f64,
    /// Fewest frames, if the video has as many.
    pub min_frames: u32,
    /// Most frames.
    pub max_frames: u32,
    /// Fewest pixels of a frame.
    pub min_pixels: u64,
    /// Most pixels of a frame.
    pub max_pixels: u64,
    /// Pixels of all patches of frames together: frames of long videos become smaller, but not much smaller than `min_pixels`. `None`
    /// without such a limit.
    pub total_pixels: Option<u64>,
    /// Most tokens of a video: frames become smaller, down to `min_pixels`, and then fewer. The processor of Qwen2-VL has no such
    /// limit.
    pub max_tokens: u32,
}

impl VideoRule {
    /// The rule of the processor of Qwen2-VL for a model whose pictures follow `pictures`.
    pub fn of(pictures: &NativeRule) -> Self {
        let square = (u64::from(pictures.patch_px) * u64::from(pictures.merge)).pow(2);
        Self {
            per_second: 2.0,
            min_frames: 4,
            max_frames: 768,
            min_pixels: MIN_TOKENS * square,
            max_pixels: MAX_TOKENS * square,
            total_pixels: None,
            max_tokens: u32::MAX,
        }
    }

    /// The rule with the fields that `config` gives, for patches of `pictures`.
    #[must_use]
    pub fn with(self, config: &VideoProcessorConfig, pictures: &NativeRule) -> Self {
        let square = (u64::from(pictures.patch_px) * u64::from(pictures.merge)).pow(2);
        // Nine tenths, as in the processor of Qwen2-VL.
        let total = |tokens: u32| u64::from(tokens).saturating_mul(square).saturating_mul(9) / 10;
        let min_pixels = config.min_pixels.unwrap_or(self.min_pixels);
        Self {
            per_second: config.fps.unwrap_or(self.per_second),
            min_frames: config.min_frames.unwrap_or(self.min_frames),
            max_frames: config.max_frames.unwrap_or(self.max_frames),
            min_pixels,
            max_pixels: config.max_pixels.unwrap_or(self.max_pixels).max(min_pixels),
            total_pixels: config.max_video_tokens.map(total).or(self.total_pixels),
            ..self
        }
    }

    /// Most pixels of one of `frames` frames, of which a patch spans `patch_frames`.
    fn max_pixels_of(&self, frames: u64, patch_frames: u32) -> u64 {
        let Some(total) = self.total_pixels else { return self.max_pixels };
        let share = total.saturating_mul(patch_frames.into()) / frames.max(1);
        self.max_pixels.min(share).max(self.min_pixels + self.min_pixels / 20)
    }

    /// The numbers of the frames, ascending. Patches span `patch_frames` frames. A video of fewer frames has only its first.
    pub fn numbers(&self, info: &FrameInfo, patch_frames: u32) -> Vec<u32> {
        let (total, patch) = (info.frames, patch_frames.max(1));
        let most = self.max_frames.min(total) / patch * patch;
        let wanted = f64::from(total) / info.per_second * self.per_second;
        let wanted = wanted.max(f64::from(self.min_frames)).min(f64::from(most));
        let count = wanted as u32 / patch * patch;
        if count == 0 {
            return vec![0];
        }
        let step = f64::from(total) / f64::from(count);
        let length = (f64::from(total) / step).ceil() as u32;
        (0..length).map(|i| (f64::from(i) * step) as u32).collect()
    }
}

/// The frames of a video that the model sees.
struct Chosen {
    info: FrameInfo,
    numbers: Vec<u32>,
    size: PixelSize,
}

impl ImageProcessor {
    /// Sets the rule for the frames of videos, in a model that takes videos.
    #[must_use]
    pub fn with_videos(self, rule: VideoRule) -> Self {
        Self { videos: self.videos.map(|(patches, _)| (patches, rule)), ..self }
    }

    /// The same processor with the fields that `config` gives for videos, in a model that takes videos.
    #[must_use]
    pub fn with_video_settings(self, config: &VideoProcessorConfig) -> Self {
        match self.videos {
            Some((pictures, rule)) => self.with_videos(rule.with(config, &pictures)),
            None => self,
        }
    }

    /// The rule for the frames of videos; `None` if the model takes pictures only.
    pub fn videos(&self) -> Option<&VideoRule> {
        self.videos.as_ref().map(|(_, rule)| rule)
    }

    /// The layout of a picture or video in a document with `pictures` pictures.
    ///
    /// # Errors
    /// [`VideoError`] for a damaged header, or if the model does not take it.
    pub fn layout_of_visual(
        &self,
        visual: &Visual,
        pictures: usize,
    ) -> Result<ImageLayout, VideoError> {
        match visual {
            Visual::Picture(picture) => Ok(self.layout_of(picture, pictures)?),
            Visual::Video(video) => self.video_layout(video),
        }
    }

    /// The pixels of a picture or video.
    ///
    /// # Errors
    /// [`VideoError`] for a damaged file, and if its pixels have another layout than its header.
    pub fn visual(&self, visual: &Visual, layout: &ImageLayout) -> Result<Image, VideoError> {
        match visual {
            Visual::Picture(picture) => Ok(self.image(picture, layout)?),
            Visual::Video(video) => self.video(video, layout),
        }
    }

    fn chosen(&self, video: &Video) -> Result<(NativeRule, Chosen), VideoError> {
        let Some((patches, rule)) = self.videos else {
            return Err(VideoError::NoVideos("the model"));
        };
        let info = video.frame_info(self.drawn_px)?;
        let square = (u64::from(patches.patch_px) * u64::from(patches.merge)).pow(2);
        let tokens = u64::from(rule.max_tokens);
        // Rounding may make a frame a little larger than it should be.
        let least = (rule.min_pixels + rule.min_pixels / 20).div_ceil(square).max(1);
        let most = (tokens / least).max(1).saturating_mul(patches.frames.into());
        let max_frames = rule.max_frames.min(u32::try_from(most).unwrap_or(u32::MAX));
        let numbers = VideoRule { max_frames, ..rule }.numbers(&info, patches.frames);
        let times = (numbers.len() as u64).div_ceil(patches.frames.into()).max(1);
        let min_pixels = rule.min_pixels;
        let max_pixels = rule.max_pixels_of(numbers.len() as u64, patches.frames);
        let max_pixels = max_pixels.min((tokens / times).max(least).saturating_mul(square));
        let size = sizes::native(info.size, &NativeRule { min_pixels, max_pixels, ..patches })?;
        Ok((patches, Chosen { info, numbers, size }))
    }

    /// The layout of a video, from the number, rate and size of its frames.
    ///
    /// # Errors
    /// [`VideoError`] for a damaged file, or if the model takes no videos.
    pub fn video_layout(&self, video: &Video) -> Result<ImageLayout, VideoError> {
        let (patches, Chosen { info, numbers, size }) = self.chosen(video)?;
        let frames = (numbers.len() as u32).div_ceil(patches.frames);
        let [rows, columns] = [size.height, size.width].map(|side| side / patches.patch_px);
        let shown_per_second = numbers.len() as f64 / f64::from(info.frames) * info.per_second;
        Ok(ImageLayout {
            views: vec![ViewGrid { frames, rows, columns }],
            tokens: frames * (rows / patches.merge) * (columns / patches.merge),
            frame_seconds: (f64::from(patches.frames) / shown_per_second) as f32,
            ..ImageLayout::default()
        })
    }

    /// The pixels of a video.
    ///
    /// # Errors
    /// [`VideoError`] for a damaged file, and if its pixels have another layout than its header.
    pub fn video(&self, video: &Video, layout: &ImageLayout) -> Result<Image, VideoError> {
        let (patches, Chosen { info, numbers, size }) = self.chosen(video)?;
        let &[grid] = &layout.views[..] else {
            return Err(VideoError::broken("its layout is not that of a video"));
        };
        let still = ViewGrid { frames: 1, ..grid };
        let mut pixels = Vec::new();
        video.each_frame_at(&numbers, &info, self.drawn_px, &mut |frame| {
            let frame = resized(&frame, size, self.config.filter);
            pixels.extend(self.table.values(&frame, still, patches.patch_px)?);
            Ok(())
        })?;
        // The last frame fills a patch that has too few.
        let of_frame = pixels.len() / numbers.len().max(1);
        let all = of_frame * (grid.frames * patches.frames) as usize;
        while pixels.len() < all {
            pixels.extend_from_within(pixels.len() - of_frame..);
        }
        if pixels.len() != all || all == 0 {
            return Err(VideoError::broken("it has other frames than its header says"));
        }
        let (tokens, frame_seconds) = (layout.tokens, layout.frame_seconds);
        let arrangement = layout.arrangement;
        Ok(Image { views: vec![View { grid, pixels }], arrangement, tokens, frame_seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_spread_evenly_and_their_number_is_even() {
        let pictures =
            NativeRule { patch_px: 14, merge: 2, frames: 2, min_pixels: 1, max_pixels: 1 << 20 };
        let rule = VideoRule::of(&pictures);
        let numbers = |frames, per_second| {
            let info = FrameInfo { frames, per_second, size: PixelSize::square(28) };
            rule.numbers(&info, 2)
        };
        assert_eq!(numbers(40, 10.0), [0, 5, 10, 15, 20, 25, 30, 35]);
        // Seven frames would be shown.
        assert_eq!(numbers(35, 10.0), [0, 5, 11, 17, 23, 29]);
        assert_eq!(numbers(10, 30.0), [0, 2, 5, 7]);
        assert_eq!(numbers(3, 30.0), [0, 1]);
        assert_eq!(numbers(1, 30.0), [0]);
        assert_eq!(numbers(30 * 3600, 30.0).len(), 768);
    }
}
