//! Pieces of documents and of turns.

use super::picture::Picture;
use super::sound::Recording;
use super::video::Video;

/// A piece of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum DocumentPiece {
    /// Text without marks.
    Text(String),
    /// A picture, not yet decoded.
    Picture(Picture),
    /// A sound, not yet decoded.
    Sound(Recording),
    /// A video, not yet decoded.
    Video(Video),
}
