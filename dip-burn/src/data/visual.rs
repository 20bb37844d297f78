//! What a document shows beside its text.

use super::error::DataError;
use super::picture::Picture;
use super::video::Video;

/// A picture or a video of a document, not yet decoded.
#[derive(Debug, Clone, PartialEq)]
pub enum Visual {
    /// A picture.
    Picture(Picture),
    /// A video.
    Video(Video),
}

impl Visual {
    /// The same with the bytes of its files in memory.
    ///
    /// # Errors
    /// [`DataError`] names a file that can no longer be read.
    pub(super) fn loaded(&self) -> Result<Self, DataError> {
        Ok(match self {
            Self::Picture(picture) => Self::Picture(picture.loaded()?),
            Self::Video(video) => Self::Video(video.loaded()?),
        })
    }
}
