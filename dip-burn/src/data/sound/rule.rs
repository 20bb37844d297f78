//! The length and the tokens of a sound for one model.

use std::sync::Arc;

use dip_core::{AudioSpec, FieldError, ModelSpec};
use serde::Serialize;

use super::{LogMel, Recording, SAMPLE_RATE, SoundError};

/// How a model reads sounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SoundRule {
    audio: AudioSpec,
}

/// A sound, as long as the model reads it.
#[derive(Debug, Clone)]
pub struct Waveform {
    /// Its samples, or the file in which they are stored.
    recording: Recording,
    /// Number of samples at [`SAMPLE_RATE`].
    length: usize,
    /// Its tokens in the sequence, at least one.
    pub tokens: u32,
}

impl SoundRule {
    /// The rule of the audio encoder of a model; `None` if it has none.
    ///
    /// # Errors
    /// [`FieldError`] for a frame rate that does not divide the sample rate.
    pub fn of(model: &ModelSpec) -> Result<Option<Self>, FieldError> {
        let module = model.modules.iter().find(|m| m.kind.get::<AudioSpec>().is_some());
        let Some((module, &audio)) = module.and_then(|m| Some((m, m.kind.get::<AudioSpec>()?)))
        else {
            return Ok(None);
        };
        let rate = audio.frames_per_second;
        if !(SAMPLE_RATE / 2).is_multiple_of(rate) {
            let path = module.path("kind.audio.frames_per_second");
            let limit = format!("a divisor of {}", SAMPLE_RATE / 2);
            return Err(FieldError::new(path, rate, limit, "give 50, as in Whisper"));
        }
        Ok(Some(Self { audio }))
    }

    /// Samples from one mel frame to the next.
    fn hop(&self) -> usize {
        (SAMPLE_RATE / 2 / self.audio.frames_per_second) as usize
    }

    /// Mel frames of the longest sound.
    fn max_mel_frames(&self) -> usize {
        2 * self.audio.max_frames as usize
    }

    /// The length and tokens of a recording; longer ones are cut to the longest sound of the model. It is decoded, unless it is stored
    /// and its length is known.
    ///
    /// # Errors
    /// [`SoundError`] if it is damaged, or too short for one token.
    pub fn waveform(&self, recording: &Recording) -> Result<Waveform, SoundError> {
        let most = self.max_mel_frames() * self.hop();
        let known = recording.known_samples(most).filter(|_| !recording.is_in_memory());
        let (recording, length) = match known {
            Some(length) => (recording.clone(), length),
            None => {
                let samples = recording.samples(most)?;
                let length = samples.len();
                (Recording::Samples(samples), length)
            }
        };
        let frames = length.div_ceil(self.hop()).div_ceil(2);
        match self.audio.tokens_of(frames as u64) as u32 {
            0 => Err(SoundError::Short { samples: length }),
            tokens => Ok(Waveform { recording, length, tokens }),
        }
    }

    /// What makes the mel frames of sounds.
    pub fn log_mel(&self) -> LogMel {
        LogMel::new(self.audio.mel_bands as usize, self.hop(), self.max_mel_frames())
    }
}

impl PartialEq for Waveform {
    /// Equal if their samples can be read and are equal.
    fn eq(&self, other: &Self) -> bool {
        self.tokens == other.tokens
            && matches!((self.samples(), other.samples()), (Ok(a), Ok(b)) if a == b)
    }
}

impl Waveform {
    /// Number of its samples at [`SAMPLE_RATE`].
    pub fn length(&self) -> usize {
        self.length
    }

    /// Its length.
    pub fn seconds(&self) -> f64 {
        self.length as f64 / f64::from(SAMPLE_RATE)
    }

    /// Samples from -1 to 1 at [`SAMPLE_RATE`].
    ///
    /// # Errors
    /// [`SoundError`] if its file has changed since its length was found.
    pub fn samples(&self) -> Result<Arc<[f32]>, SoundError> {
        let samples = self.recording.samples(self.length)?;
        match samples.len() == self.length {
            true => Ok(samples),
            false => Err(SoundError::broken("its file has changed since it was indexed")),
        }
    }
}
