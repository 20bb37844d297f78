//! What is known of media without decoding them.

use std::sync::{Mutex, OnceLock, PoisonError};

use dip_core::hf::PixelSize;
use serde::{Deserialize, Serialize};

/// What is known of a file of a picture, sound or video that can be used. It becomes known when the file is first read as that. A
/// file that cannot be used has no facts: it is read again, and gives the same error.
#[derive(Debug, Default)]
pub(in crate::data) struct MediaFacts {
    /// The size of a picture when upright. Its file is whole.
    pub picture: OnceLock<PixelSize>,
    /// The frames of a video.
    pub video: OnceLock<VideoFacts>,
    /// The length of a sound.
    sound: Mutex<Option<SoundFacts>>,
}

impl MediaFacts {
    /// The length of a sound, if it is known.
    pub fn sound(&self) -> Option<SoundFacts> {
        *self.sound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the length of a sound, unless more of it is known.
    pub fn learn_sound(&self, found: SoundFacts) {
        let mut known = self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|known| known.longer && known.samples < found.samples) {
            *known = Some(found);
        }
    }
}

/// Number, rate and size of the frames of a video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameInfo {
    /// Number of frames, at least 1.
    pub frames: u32,
    /// Mean number of frames per second.
    pub per_second: f64,
    /// Size of a frame.
    pub size: PixelSize,
}

impl FrameInfo {
    /// True if there are frames, at a rate that is a number.
    pub(in crate::data) fn has_frames(&self) -> bool {
        self.frames > 0 && self.per_second > 0.0 && self.per_second.is_finite()
    }
}

/// The frames of a video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::data) struct VideoFacts {
    /// Number, rate and size.
    pub info: FrameInfo,
    /// Length, in seconds.
    pub seconds: f64,
}

/// The length of a sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::data) struct SoundFacts {
    /// Its samples at the rate of the encoders.
    pub samples: u64,
    /// True if there are more, which nobody has read yet.
    pub longer: bool,
}
