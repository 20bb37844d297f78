//! Errors of videos.

use thiserror::Error;

use crate::data::error::{BoxError, DataError};
use crate::data::picture::PictureError;

/// A video without usable frames or latents.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VideoError {
    /// A picture of the video cannot be used.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The file is damaged, or of another format than its name says.
    #[error("the video cannot be decoded: {0}")]
    Broken(#[source] BoxError),
    /// `ffmpeg` is not installed.
    #[error(
        "the video needs `ffmpeg` and `ffprobe`, which cannot be run: {0}; install them, or give GIF or WebP"
    )]
    NoFfmpeg(#[source] std::io::Error),
    /// The latents are of another model.
    #[error(
        "the latents have shape {found:?}, but must be [frames, rows, columns, {values}] with at most {tokens} tokens per frame; make them for this model"
    )]
    Shape {
        /// Their shape.
        found: Vec<usize>,
        /// Values of a token of the model.
        values: u32,
        /// Most tokens of a frame.
        tokens: u32,
    },
    /// The latents are of another autoencoder, or larger than the model allows.
    #[error(
        "the latents have shape {found:?}, but must be [{channels}, frames, rows, columns] with sides that are multiples of {patch:?} and \
         at most {tokens} tokens per frame; make them with the model's autoencoder, or raise sequence.frame_tokens"
    )]
    Channels {
        /// Their shape.
        found: Vec<usize>,
        /// Channels of the model.
        channels: usize,
        /// Latent frames, rows and columns of a token.
        patch: [u32; 3],
        /// Most tokens of a frame.
        tokens: u32,
    },
    /// The model takes pictures only.
    #[error(
        "{0} takes no videos in documents; use Qwen2-VL or Qwen2.5-VL, or leave the videos out"
    )]
    NoVideos(&'static str),
    /// The model needs latents, but the video has frames.
    #[error(
        "the model has {values} values per token, which are no square patch of 3 colours; give latents in safetensors or .npy"
    )]
    NotPixels {
        /// Values of a token.
        values: u32,
    },
}

impl From<DataError> for VideoError {
    fn from(error: DataError) -> Self {
        Self::Picture(error.into())
    }
}

impl VideoError {
    /// A [`VideoError::Broken`] with its reason.
    pub fn broken(reason: impl Into<BoxError>) -> Self {
        Self::Broken(reason.into())
    }
}
