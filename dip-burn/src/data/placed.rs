//! Pictures, videos and sounds in a sequence of tokens.

use super::sound::Waveform;
use super::visual::Visual;
use crate::batch::ImageLayout;

/// A picture or video in a sequence of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedPicture {
    /// Offset of its first token. The others follow it; those of a split picture with text between them.
    pub offset: u32,
    /// The picture or video.
    pub visual: Visual,
    /// Its grids of patches, and its tokens.
    pub layout: ImageLayout,
}

/// A sound in a sequence of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedSound {
    /// Offset of its first token; the others follow it.
    pub offset: u32,
    /// Its samples, and the number of its tokens.
    pub waveform: Waveform,
}
