//! Notes, the content of drawn sounds.

use std::f64::consts::TAU;

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::data::sound::SAMPLE_RATE;

/// The pitch of a note with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Pitch {
    Deep,
    Low,
    Middle,
    High,
    Shrill,
}

/// The tone of a note with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tone {
    /// A sine.
    Hum,
    /// A sawtooth, which has all overtones.
    Buzz,
    /// A sine that dies away.
    Ping,
    /// A sine with a fast tremble.
    Trill,
}

/// A note of a melody.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Note {
    /// Its pitch.
    pub pitch: Pitch,
    /// Its tone.
    pub tone: Tone,
    /// Its frequency, near that of its pitch.
    pub hertz: f64,
    /// Its length.
    pub seconds: f64,
    /// Its largest value.
    pub volume: f64,
}

impl Pitch {
    /// Every pitch.
    pub const ALL: [Self; 5] = [Self::Deep, Self::Low, Self::Middle, Self::High, Self::Shrill];

    /// Its name in captions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deep => "deep",
            Self::Low => "low",
            Self::Middle => "middle",
            Self::High => "high",
            Self::Shrill => "shrill",
        }
    }

    /// The frequency in the middle of its range.
    const fn hertz(self) -> f64 {
        match self {
            Self::Deep => 150.0,
            Self::Low => 300.0,
            Self::Middle => 600.0,
            Self::High => 1200.0,
            Self::Shrill => 2400.0,
        }
    }
}

impl Tone {
    /// Every tone.
    pub const ALL: [Self; 4] = [Self::Hum, Self::Buzz, Self::Ping, Self::Trill];

    /// Its name in captions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hum => "hum",
            Self::Buzz => "buzz",
            Self::Ping => "ping",
            Self::Trill => "trill",
        }
    }
}

impl Note {
    /// A random note.
    pub(super) fn random(rng: &mut impl Rng) -> Self {
        let pitch = *Pitch::ALL.choose(rng).expect("there are pitches");
        Self {
            pitch,
            tone: *Tone::ALL.choose(rng).expect("there are tones"),
            hertz: pitch.hertz() * rng.random_range(0.85..1.15),
            seconds: rng.random_range(0.12..0.2),
            volume: rng.random_range(0.2..0.5),
        }
    }

    /// Its samples.
    pub(super) fn samples(&self) -> impl Iterator<Item = f32> + '_ {
        let rate = f64::from(SAMPLE_RATE);
        let count = (self.seconds * rate) as usize;
        (0..count).map(move |n| {
            let time = n as f64 / rate;
            let turns = self.hertz * time;
            let sine = (TAU * turns).sin();
            let value = match self.tone {
                Tone::Hum => sine,
                Tone::Buzz => 2.0 * turns.fract() - 1.0,
                Tone::Ping => sine * (-25.0 * time).exp(),
                Tone::Trill => sine * (0.5 - 0.5 * (TAU * 30.0 * time).cos()),
            };
            (self.volume * value) as f32
        })
    }
}
