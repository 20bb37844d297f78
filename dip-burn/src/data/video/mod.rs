//! Captioned videos: from files or drawings to the tokens of a diffusion transformer.
//!
//! ```text
//! WebDataset | MovingShapes -> CaptionedVideo -> Latents -> Microbatch of noisy clips
//!      (DataSource)               Video         LatentShape        ClipLoader
//! ```

mod animation;
mod channels;
mod error;
mod ffmpeg;
mod flow;
mod frames;
mod grid;
mod loader;
mod npy;
pub(crate) mod packed;
mod stored;

pub use channels::{ChannelLatents, LatentStatistics};
pub use error::VideoError;
pub use flow::{FlowTimes, TimeDistribution, noisy};
pub(crate) use flow::{SAMPLE_SHIFT, at_time, sample_time, standard_normals};
pub use grid::{LatentShape, Latents};
pub use loader::{
    ClipBatch, ClipLoader, ClipLoaderConfig, ClipPosition, caption_tokens, joined_spaces,
};
pub(crate) use packed::ReadyClip;

use std::fmt::Debug;
use std::sync::Arc;

use dip_core::hf::{PixelSize, ResizeFilter};
use image::RgbImage;

use super::encoded::Encoded;
pub use super::encoded::FrameInfo;
use super::error::DataError;
use super::picture::{Picture, resized};

/// A video with its caption.
#[derive(Debug, Clone)]
pub struct CaptionedVideo {
    /// The video.
    pub video: Video,
    /// The caption.
    pub caption: String,
}

/// A video before it is decoded; cheap to clone.
#[derive(Debug, Clone)]
pub enum Video {
    /// A video whose frames are generated when they are needed.
    Drawn(Arc<dyn FrameSource>),
    /// The bytes of a GIF file.
    Gif(Encoded),
    /// The bytes of an animated WebP file.
    WebP(Encoded),
    /// The bytes of a file that an installed `ffmpeg` decodes, such as MP4.
    Ffmpeg(Encoded),
    /// Pictures at a fixed rate.
    Frames {
        /// The pictures, in order.
        pictures: Arc<[Picture]>,
        /// Pictures per second.
        per_second: f64,
    },
    /// The bytes of a safetensors or `.npy` file with the latents of an autoencoder.
    Latents(Encoded),
}

/// Makes the frames of a video.
///
/// Implement it for videos that are rendered, fetched from elsewhere, or stored in your own format.
pub trait FrameSource: Debug + Send + Sync {
    /// Length of the video, in seconds.
    fn seconds(&self) -> f64;

    /// `count` frames of one size, evenly spaced from the beginning to the end.
    ///
    /// # Errors
    /// [`VideoError`] if there are no frames; the video is then skipped and counted.
    fn frames(&self, count: u32) -> Result<Vec<RgbImage>, VideoError>;
}

impl Video {
    /// The same with the bytes of its files in memory.
    ///
    /// # Errors
    /// [`DataError`] names a file that can no longer be read.
    pub(super) fn loaded(&self) -> Result<Self, DataError> {
        Ok(match self {
            Self::Drawn(_) => self.clone(),
            Self::Gif(file) => Self::Gif(file.loaded()?),
            Self::WebP(file) => Self::WebP(file.loaded()?),
            Self::Ffmpeg(file) => Self::Ffmpeg(file.loaded()?),
            Self::Latents(file) => Self::Latents(file.loaded()?),
            Self::Frames { pictures, per_second } => {
                let pictures = pictures.iter().map(Picture::loaded).collect::<Result<_, _>>()?;
                Self::Frames { pictures, per_second: *per_second }
            }
        })
    }

    /// Its tokens: at most `most` latent frames, in the size that fits the model best.
    ///
    /// # Errors
    /// [`VideoError`] for a damaged file, and for frames if the model needs latents.
    pub fn latents(&self, shape: &LatentShape, most: u32) -> Result<Latents, VideoError> {
        self.normalised(shape, most, None)
    }

    /// As [`Video::latents`]; latents of channels are normalised if there are statistics.
    ///
    /// # Errors
    /// As [`Video::latents`].
    pub fn normalised(
        &self,
        shape: &LatentShape,
        most: u32,
        statistics: Option<&LatentStatistics>,
    ) -> Result<Latents, VideoError> {
        if let Self::Latents(bytes) = self {
            return stored::latents(&bytes.bytes()?, shape, most, statistics);
        }
        let patch_px = shape.patch_px().ok_or(VideoError::NotPixels { values: shape.values })?;
        let frames = match self {
            Self::Drawn(source) => source.frames(shape.frames(source.seconds()).min(most))?,
            Self::Gif(bytes) => animation::gif(&bytes.bytes()?, shape, most)?,
            Self::WebP(bytes) => animation::webp(&bytes.bytes()?, shape, most)?,
            Self::Ffmpeg(bytes) => ffmpeg::frames(&bytes.bytes()?, shape, most)?,
            Self::Frames { pictures, per_second } => shown(pictures, *per_second, shape, most)?,
            Self::Latents(_) => unreachable!("latents have returned above"),
        };
        let first = frames.first().ok_or_else(|| VideoError::broken("it has no frames"))?;
        let grid = shape.grid(first.dimensions(), frames.len() as u32, patch_px);
        let size = PixelSize::new(grid.columns * patch_px, grid.rows * patch_px);
        let scaled = frames.iter().map(|frame| resized(frame, size, ResizeFilter::Bilinear));
        Ok(Latents::of_frames(&scaled.collect::<Vec<_>>(), grid, patch_px))
    }
}

/// The picture that is shown at the time of each latent frame.
fn shown(
    pictures: &[Picture],
    per_second: f64,
    shape: &LatentShape,
    most: u32,
) -> Result<Vec<RgbImage>, VideoError> {
    let Some(last) = pictures.len().checked_sub(1) else { return Ok(Vec::new()) };
    let drawn_px = shape.tokens_per_frame.isqrt().max(1) * shape.patch_px().unwrap_or(1);
    let frames = shape.frames(pictures.len() as f64 / per_second).min(most);
    let at = |i: u32| {
        let shown = (f64::from(i) / shape.frames_per_second * per_second) as usize;
        Ok(pictures[shown.min(last)].rgb(drawn_px)?)
    };
    (0..frames).map(at).collect()
}

#[cfg(test)]
mod tests;
