//! How a model reads what is not text.

use std::hash::Hasher;

use dip_core::{FieldError, ModelSpec};
use fnv::FnvHasher;

use super::error::DataError;
use super::placed::PlacedSound;
use super::processor::ImageProcessor;
use super::sound::{MelFrames, SoundRule};
use crate::batch::Sound;

/// What turns the pictures and sounds of documents into instances of a model's encoders.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MediaProcessor {
    /// Turns pictures into images; `None` if the model takes none.
    pub images: Option<ImageProcessor>,
    /// The length and tokens of sounds; `None` if the model takes none.
    pub sounds: Option<SoundRule>,
}

impl MediaProcessor {
    /// The processor for the encoders of `model`.
    ///
    /// # Errors
    /// [`FieldError`] for a field of an encoder that the data cannot serve.
    pub fn of_model(model: &ModelSpec) -> Result<Self, FieldError> {
        Ok(Self { images: ImageProcessor::of_model(model), sounds: SoundRule::of(model)? })
    }
}

impl MediaProcessor {
    /// A number that tells apart processors that make other pixels, frames or sounds of the same files.
    pub fn fingerprint(&self) -> u64 {
        let Self { images, sounds } = self;
        let (pictures, videos) =
            (images.as_ref().map(|i| i.config()), images.as_ref().map(|i| i.videos()));
        let text = serde_json::to_string(&(pictures, videos, sounds));
        let mut hash = FnvHasher::default();
        hash.write(text.expect("plain data has a JSON form").as_bytes());
        hash.finish()
    }

    /// The mel frames of sounds, or only their number if the values are not `wanted`; none without an audio encoder.
    ///
    /// # Errors
    /// [`DataError`] if the file of a sound can no longer be read, or has changed.
    pub fn hear(&self, sounds: &[PlacedSound], wanted: bool) -> Result<Vec<Sound>, DataError> {
        let Some(rule) = self.sounds.filter(|_| !sounds.is_empty()) else { return Ok(Vec::new()) };
        let log_mel = rule.log_mel();
        let sound = |placed: &PlacedSound| {
            let waveform = &placed.waveform;
            let MelFrames { values, frames } = match wanted {
                true => {
                    let samples = waveform.samples();
                    log_mel.frames(&samples.map_err(|error| DataError::Document(error.into()))?)
                }
                false => log_mel.silent(waveform.length()),
            };
            let (offset, tokens) = (placed.offset, waveform.tokens);
            Ok(Sound { mel: values, mel_frames: frames, offset, tokens })
        };
        sounds.iter().map(sound).collect()
    }
}

impl From<ImageProcessor> for MediaProcessor {
    fn from(images: ImageProcessor) -> Self {
        Self { images: Some(images), sounds: None }
    }
}
