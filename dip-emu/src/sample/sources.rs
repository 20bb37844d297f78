//! The distributions of the data sets. Means and ranges are those that the paper or the data sets give; shapes are
//! log-normal, and the shares of the sources are ours.

use std::f64::consts::TAU;

use dip_core::ClipMeta;
use rand::Rng;

/// A log-normal distribution between two limits.
#[derive(Debug, Clone, Copy)]
struct LogNormal {
    median: f64,
    sigma: f64,
    least: f64,
    most: f64,
}

/// LAION-2B: 16.4 text tokens an image on average.
const LAION_TEXT: LogNormal = LogNormal { median: 13.7, sigma: 0.6, least: 1.0, most: 77.0 };
/// OBELICS: 0.4 to 3,115 text tokens an image; 326 on average (115e9 tokens, 353e6 images).
const OBELICS_TEXT: LogNormal = LogNormal { median: 90.0, sigma: 1.6, least: 0.4, most: 3115.0 };
/// OBELICS: one image and another with this probability, again and again; 2.5 a document on average.
const OBELICS_NEXT_IMAGE: f64 = 0.6;
/// ScienceQA: question, lecture and solution.
const SCIENCE_QA_TEXT: LogNormal =
    LogNormal { median: 120.0, sigma: 0.6, least: 10.0, most: 1000.0 };
/// ScienceQA: 48.7 % of the questions have an image.
const SCIENCE_QA_IMAGE: f64 = 0.487;
/// Speech and sounds in seconds, at most a window of Whisper.
const SOUND_SECONDS: LogNormal = LogNormal { median: 8.0, sigma: 0.6, least: 1.0, most: 30.0 };
/// Transcript tokens of a second of speech.
const SPEECH_TOKENS_A_SECOND: f64 = 3.0;

/// A data set of videos.
struct Videos {
    share: f64,
    seconds: LogNormal,
    caption: LogNormal,
}

/// ShareGPT4Video (long captions), InternVid (short captions), MMTrail-2M (cuts of trailers).
const VIDEOS: [Videos; 3] = [
    Videos {
        share: 0.3,
        seconds: LogNormal { median: 14.0, sigma: 0.5, least: 4.0, most: 16.0 },
        caption: LogNormal { median: 270.0, sigma: 0.35, least: 40.0, most: 1000.0 },
    },
    Videos {
        share: 0.4,
        seconds: LogNormal { median: 9.0, sigma: 0.6, least: 3.0, most: 16.0 },
        caption: LogNormal { median: 18.0, sigma: 0.4, least: 5.0, most: 77.0 },
    },
    Videos {
        share: 0.3,
        seconds: LogNormal { median: 4.0, sigma: 0.4, least: 2.0, most: 16.0 },
        caption: LogNormal { median: 60.0, sigma: 0.5, least: 10.0, most: 300.0 },
    },
];

/// Where documents come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source {
    Laion,
    Obelics,
    ScienceQa,
    Speech,
    Text,
}

/// One document.
#[derive(Debug, Clone, Copy, Default)]
pub struct Document {
    pub images: u32,
    pub text_tokens: u64,
    pub sound_seconds: Option<f64>,
}

impl Source {
    /// The sources of a model with these encoders; none without an encoder.
    pub fn of(vision: bool, audio: bool) -> Vec<Self> {
        let mut sources = Vec::new();
        if vision {
            sources.extend([Self::Laion, Self::Obelics, Self::ScienceQa]);
        }
        if audio {
            sources.push(Self::Speech);
        }
        sources
    }

    /// Share of the stretches.
    fn share(self) -> f64 {
        match self {
            Self::Laion => 0.15,
            Self::Obelics => 0.65,
            Self::ScienceQa => 0.2,
            Self::Speech => 0.4,
            Self::Text => 1.0,
        }
    }

    /// One of `sources` by share; text alone where there are none.
    pub fn draw(sources: &[Self], rng: &mut impl Rng) -> Self {
        let total: f64 = sources.iter().map(|s| s.share()).sum();
        let mut at = rng.random::<f64>() * total;
        for &source in sources {
            at -= source.share();
            if at < 0.0 {
                return source;
            }
        }
        sources.last().copied().unwrap_or(Self::Text)
    }

    /// One of those of `sources` that have the most images or sounds for their text; text alone where there are none.
    pub fn densest(sources: &[Self], rng: &mut impl Rng) -> Self {
        let dense: Vec<Self> =
            sources.iter().copied().filter(|s| matches!(s, Self::Laion | Self::Speech)).collect();
        Self::draw(&dense, rng)
    }

    /// One document, its text `scale` times as long as in the data set. It has at least one token of text.
    pub fn document(self, rng: &mut impl Rng, scale: f64) -> Document {
        let tokens = |tokens: f64| (tokens * scale).round().max(1.0) as u64;
        match self {
            Self::Laion => Document {
                images: 1,
                text_tokens: tokens(LAION_TEXT.draw(rng)),
                sound_seconds: None,
            },
            Self::Obelics => {
                let mut images = 1;
                while images < 64 && rng.random_bool(OBELICS_NEXT_IMAGE) {
                    images += 1;
                }
                let text = OBELICS_TEXT.draw(rng) * f64::from(images);
                Document { images, text_tokens: tokens(text), sound_seconds: None }
            }
            Self::ScienceQa => Document {
                images: u32::from(rng.random_bool(SCIENCE_QA_IMAGE)),
                text_tokens: tokens(SCIENCE_QA_TEXT.draw(rng)),
                sound_seconds: None,
            },
            Self::Speech => {
                // In hundredths, so that files stay short.
                let seconds = (SOUND_SECONDS.draw(rng) * 100.0).round() / 100.0;
                let text = tokens(seconds * SPEECH_TOKENS_A_SECOND);
                Document { images: 0, text_tokens: text, sound_seconds: Some(seconds) }
            }
            Self::Text => {
                let text_tokens = tokens(OBELICS_TEXT.draw(rng));
                Document { images: 0, text_tokens, sound_seconds: None }
            }
        }
    }
}

/// A clip of at most `limit` seconds, in tenths of a second.
pub fn clip(rng: &mut impl Rng, limit: f64) -> ClipMeta {
    let mut at = rng.random::<f64>();
    let chosen = VIDEOS.iter().find(|v| {
        at -= v.share;
        at < 0.0
    });
    let videos = chosen.unwrap_or(&VIDEOS[0]);
    let seconds = (videos.seconds.draw(rng) * 10.0).round() / 10.0;
    let caption_tokens = videos.caption.draw(rng).round().max(1.0) as u64;
    ClipMeta { seconds: seconds.min(limit), caption_tokens, ..Default::default() }
}

impl LogNormal {
    fn draw(self, rng: &mut impl Rng) -> f64 {
        // Box and Muller; 1 - u is never 0.
        let (u, v) = (rng.random::<f64>(), rng.random::<f64>());
        let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (TAU * v).cos();
        (self.median * (self.sigma * normal).exp()).clamp(self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn mean(distribution: LogNormal) -> f64 {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let n = 200_000;
        (0..n).map(|_| distribution.draw(&mut rng)).sum::<f64>() / f64::from(n)
    }

    #[test]
    fn means_are_those_of_the_data_sets() {
        let laion = mean(LAION_TEXT);
        assert!((laion / 16.4 - 1.0).abs() < 0.02, "{laion}");
        let obelics = mean(OBELICS_TEXT);
        assert!((obelics / 326.0 - 1.0).abs() < 0.25, "{obelics}");
    }
}
