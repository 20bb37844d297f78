//! Errors of documents.

use thiserror::Error;

use crate::data::chat::ChatError;
use crate::data::error::{DataError, TokenizeError};
use crate::data::picture::PictureError;
use crate::data::skip::SkipReason;
use crate::data::sound::SoundError;
use crate::data::video::VideoError;

/// A document that has no token ids.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// The tokenizer refuses a text.
    #[error(transparent)]
    Text(#[from] TokenizeError),
    /// The size of a picture cannot be found.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The chat template refuses a conversation.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The size of a video cannot be found.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// A sound cannot be used.
    #[error(transparent)]
    Sound(#[from] SoundError),
}

impl DocumentError {
    /// The reason for which the document is skipped.
    pub fn reason(&self) -> SkipReason {
        match self {
            Self::Text(_) => SkipReason::Untokenizable,
            Self::Picture(error) | Self::Video(VideoError::Picture(error)) => error.reason(),
            Self::Video(_) => SkipReason::BrokenVideo,
            Self::Chat(_) => SkipReason::Unrenderable,
            Self::Sound(_) => SkipReason::BrokenSound,
        }
    }
}

impl From<DocumentError> for DataError {
    fn from(error: DocumentError) -> Self {
        Self::Document(error.into())
    }
}
