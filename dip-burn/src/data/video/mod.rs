//! Captioned videos: from files or drawings to the tokens of a diffusion transformer.
//!
//! ```text
//! WebDataset | MovingShapes -> CaptionedVideo -> Latents -> Microbatch of noisy clips
//!      (DataSource)               Video         LatentShape        ClipLoader
//! ```

mod animation;
mod ffmpeg;
mod flow;
mod grid;
mod loader;
pub(crate) mod packed;
mod stored;

pub use flow::noisy;
pub(crate) use flow::{at_time, normals, sample_time};
pub use grid::{LatentShape, Latents};
pub use loader::{ClipBatch, ClipLoader, ClipLoaderConfig, ClipPosition, caption_tokens};
pub(crate) use packed::ReadyClip;

use std::sync::Arc;

use image::RgbImage;
use image::imageops::{FilterType, resize};
use thiserror::Error;

use super::moving::MovingShape;
use super::picture::{Picture, PictureError};

/// A video before it is decoded, and what is to be seen in it.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptionedVideo {
    /// The video.
    pub video: Video,
    /// What a caption says.
    pub caption: String,
}

/// A video before it is decoded; cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub enum Video {
    /// A clip that is drawn when its frames are asked for.
    Drawn(Arc<MovingShape>),
    /// A GIF file.
    Gif(Arc<[u8]>),
    /// An animated WebP file.
    WebP(Arc<[u8]>),
    /// A file that an installed `ffmpeg` decodes, as MP4.
    Ffmpeg(Arc<[u8]>),
    /// Pictures, and how many of them make a second.
    Frames(Arc<[Picture]>, f64),
    /// Tokens that an autoencoder has made, in a safetensors file.
    Latents(Arc<[u8]>),
}

/// A video that has no tokens to give.
#[derive(Debug, Error)]
pub enum VideoError {
    /// A picture.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The file is damaged, or not what its name says.
    #[error("the video cannot be decoded: {0}")]
    Broken(String),
    /// A tool that is not installed.
    #[error(
        "the video needs `ffmpeg` and `ffprobe`, which cannot be run: {0}; install them, or give GIF or WebP"
    )]
    NoFfmpeg(String),
    /// Latents of another model.
    #[error(
        "the latents have shape {found:?}, but must be [frames, rows, columns, {values}] with at most {tokens} tokens a frame; make them for this model"
    )]
    Shape {
        /// Their shape.
        found: Vec<usize>,
        /// Values of a token in the model.
        values: u32,
        /// Most tokens of a frame.
        tokens: u32,
    },
    /// Frames for a model that has latents of another kind.
    #[error(
        "the model has {values} values a token, which are no square patch of 3 colours; give latents in safetensors"
    )]
    NotPixels {
        /// Values of a token.
        values: u32,
    },
}

impl Video {
    /// Its tokens: at most `most` latent frames, in the size that fits the model best.
    ///
    /// # Errors
    /// [`VideoError`] for damaged files, and where the model has no pixels for latents.
    pub fn latents(&self, shape: &LatentShape, most: u32) -> Result<Latents, VideoError> {
        if let Self::Latents(bytes) = self {
            return stored::latents(bytes, shape, most);
        }
        let patch_px = shape.patch_px().ok_or(VideoError::NotPixels { values: shape.values })?;
        let frames = match self {
            Self::Drawn(clip) => drawn(clip, shape, most),
            Self::Gif(bytes) => animation::gif(bytes, shape, most)?,
            Self::WebP(bytes) => animation::webp(bytes, shape, most)?,
            Self::Ffmpeg(bytes) => ffmpeg::frames(bytes, shape, most)?,
            Self::Frames(pictures, per_second) => pictures_of(pictures, *per_second, shape, most)?,
            Self::Latents(_) => unreachable!("they were handled above"),
        };
        let first = frames.first().ok_or_else(|| VideoError::Broken("it has no frames".into()))?;
        let grid = shape.grid(first.dimensions(), frames.len() as u32, patch_px);
        let (width, height) = (grid.columns * patch_px, grid.rows * patch_px);
        let scaled: Vec<RgbImage> = frames.iter().map(|f| scaled(f, width, height)).collect();
        Ok(Latents::of_frames(&scaled, grid, patch_px))
    }
}

fn drawn(clip: &MovingShape, shape: &LatentShape, most: u32) -> Vec<RgbImage> {
    let frames = shape.frames(f64::from(clip.seconds)).min(most);
    (0..frames).map(|i| clip.draw(i as f32 / (frames - 1).max(1) as f32)).collect()
}

/// The picture that is shown at the time of each latent frame.
fn pictures_of(
    pictures: &[Picture],
    per_second: f64,
    shape: &LatentShape,
    most: u32,
) -> Result<Vec<RgbImage>, VideoError> {
    let frames = shape.frames(pictures.len() as f64 / per_second).min(most);
    let at = |i: u32| {
        let shown = (f64::from(i) / shape.frames_per_second * per_second) as usize;
        Ok(pictures[shown.min(pictures.len() - 1)].rgb()?)
    };
    (0..if pictures.is_empty() { 0 } else { frames }).map(at).collect()
}

fn scaled(frame: &RgbImage, width: u32, height: u32) -> RgbImage {
    if frame.dimensions() == (width, height) {
        return frame.clone();
    }
    resize(frame, width, height, FilterType::Triangle)
}

#[cfg(test)]
#[path = "video_tests.rs"]
mod tests;
