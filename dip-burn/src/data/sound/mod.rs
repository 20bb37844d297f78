//! Sounds: files to samples of one channel at 16 kHz, and samples to the log-mel frames of an audio encoder.
//!
//! | file | step |
//! |---|---|
//! | `wav`, `compressed` | the samples of a file |
//! | `resample` | samples at 16 kHz |
//! | `mel`, `spectrum` | log-mel frames, as Whisper's feature extractor makes them |
//! | `rule` | the length and the tokens of a sound for one model |

#[cfg(feature = "audio")]
mod compressed;
mod mel;
mod resample;
mod rule;
mod spectrum;
mod wav;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use thiserror::Error;

use super::encoded::{Encoded, SoundFacts};
use super::error::{BoxError, DataError};
pub use mel::{LogMel, MelFrames};
pub use rule::{SoundRule, Waveform};

/// Samples per second of the sounds that encoders read.
pub const SAMPLE_RATE: u32 = 16_000;
/// Sample rates of files that are read.
const FILE_RATES: std::ops::RangeInclusive<u32> = 1_000..=192_000;
/// Most channels of a file.
const MAX_CHANNELS: usize = 32;

/// A sound before it is decoded; cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub enum Recording {
    /// The bytes of a WAV file; with the feature `audio` also of a FLAC, MP3 or Ogg Vorbis file.
    Encoded(Encoded),
    /// Samples from -1 to 1 of one channel at [`SAMPLE_RATE`].
    Samples(Arc<[f32]>),
}

/// A sound that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SoundError {
    /// The file is damaged.
    #[error("the sound cannot be decoded: {0}")]
    Broken(#[source] BoxError),
    /// Its file can no longer be read.
    #[error(transparent)]
    Unreadable(#[from] Box<DataError>),
    /// The file is of a format that is not read.
    #[error("the format of the sound is unknown; {}", formats())]
    Format,
    /// The sample rate or the number of channels is outside its limits.
    #[error(
        "the sound has {channels} channels at {rate} Hz, but 1 to {MAX_CHANNELS} channels at {} to {} Hz are read",
        FILE_RATES.start(),
        FILE_RATES.end()
    )]
    Shape {
        /// Channels.
        channels: usize,
        /// Samples per second.
        rate: u32,
    },
    /// The sound is too short for one token.
    #[error(
        "the sound has {samples} samples at {SAMPLE_RATE} Hz, which is too short for one token"
    )]
    Short {
        /// Its samples.
        samples: usize,
    },
}

impl From<DataError> for SoundError {
    fn from(error: DataError) -> Self {
        Self::Unreadable(Box::new(error))
    }
}

impl SoundError {
    fn broken(reason: impl Into<BoxError>) -> Self {
        Self::Broken(reason.into())
    }
}

/// The formats that this build reads.
fn formats() -> &'static str {
    match cfg!(feature = "audio") {
        true => "WAV, FLAC, MP3 and Ogg Vorbis are read",
        false => "WAV is read, and with the feature `audio` FLAC, MP3 and Ogg Vorbis",
    }
}

/// The samples of a file: the mean of its channels.
struct FileSamples {
    rate: u32,
    values: Vec<f32>,
}

impl Recording {
    /// Samples from -1 to 1 of one channel at [`SAMPLE_RATE`], at most `most` of them.
    ///
    /// # Errors
    /// [`SoundError`] for a file that is damaged or of another format.
    pub fn samples(&self, most: usize) -> Result<Arc<[f32]>, SoundError> {
        let bytes = match self {
            Self::Samples(samples) if samples.len() <= most => return Ok(samples.clone()),
            Self::Samples(samples) => return Ok(samples[..most].into()),
            Self::Encoded(file) => file.bytes()?,
        };
        let FileSamples { rate, values } = guarded(|| decoded(&bytes, most))?;
        let mut samples = resample::to_model_rate(values, rate);
        let longer = samples.len() > most;
        samples.truncate(most);
        if let Self::Encoded(file) = self {
            file.facts().learn_sound(SoundFacts { samples: samples.len() as u64, longer });
        }
        Ok(samples.into())
    }

    /// The same with the bytes of its file in memory.
    ///
    /// # Errors
    /// [`DataError`] names a file that can no longer be read.
    pub(super) fn loaded(&self) -> Result<Self, DataError> {
        match self {
            Self::Encoded(file) => Ok(Self::Encoded(file.loaded()?)),
            Self::Samples(_) => Ok(self.clone()),
        }
    }

    /// The number of samples that [`samples`](Self::samples) gives, if it is known without decoding them.
    fn known_samples(&self, most: usize) -> Option<usize> {
        let Self::Encoded(file) = self else { return None };
        let SoundFacts { samples, longer } = file.facts().sound()?;
        let is_enough = !longer || most as u64 <= samples;
        is_enough.then(|| samples.min(most as u64) as usize)
    }

    /// True if its samples, or those of its file, are in memory.
    fn is_in_memory(&self) -> bool {
        match self {
            Self::Encoded(file) => file.is_in_memory(),
            Self::Samples(_) => true,
        }
    }
}

/// The samples of a file, not many more than those that become `most` samples at [`SAMPLE_RATE`].
fn decoded(bytes: &Arc<[u8]>, most: usize) -> Result<FileSamples, SoundError> {
    let longest = Longest { samples: most };
    if wav::is_wav(bytes) {
        return wav::decoded(bytes, longest);
    }
    #[cfg(feature = "audio")]
    return compressed::decoded(bytes, longest);
    #[cfg(not(feature = "audio"))]
    Err(SoundError::Format)
}

/// How much of a file is decoded.
#[derive(Clone, Copy)]
struct Longest {
    /// Samples at [`SAMPLE_RATE`].
    samples: usize,
}

impl Longest {
    /// Samples of one channel at `rate`: a second more than is needed, because the filter of the resampler reads ahead.
    fn at(self, rate: u32) -> usize {
        let rate = u64::from(rate);
        (self.samples as u64 * rate / u64::from(SAMPLE_RATE) + rate) as usize
    }
}

/// Checks the form of a file before its samples are read.
fn check_shape(channels: usize, rate: u32) -> Result<(), SoundError> {
    match (1..=MAX_CHANNELS).contains(&channels) && FILE_RATES.contains(&rate) {
        true => Ok(()),
        false => Err(SoundError::Shape { channels, rate }),
    }
}

/// Runs a decoder; a panic means that the sound is broken.
fn guarded<T>(decode: impl FnOnce() -> Result<T, SoundError>) -> Result<T, SoundError> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(SoundError::broken("the decoder failed on damaged data")))
}

#[cfg(test)]
mod tests;
