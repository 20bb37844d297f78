//! What a document shows beside its text.

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
