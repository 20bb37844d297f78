//! The distributions of the data sets. Means and ranges come from the paper or from the data sets. Log-normal shapes and
//! the shares of the sources are assumptions.

use dip_core::{ClipMeta, ImageSize, TileSpec, VitSpec};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_distr::{Distribution, LogNormal};

/// Pixels of a picture of LAION-2B over those of a typical one; most pictures of the web have between 0.1 and 1 million pixels.
const PICTURE_PIXELS: ClampedLogNormal =
    ClampedLogNormal { median: 1.0, sigma: 0.9, min: 0.02, max: 50.0 };
/// Squares that a typical picture is large where pictures are cut into tiles.
const TYPICAL_TILES: f64 = 3.0;
/// Width of a picture over its height: from portraits to panoramas.
const PICTURE_ASPECT: ClampedLogNormal =
    ClampedLogNormal { median: 1.2, sigma: 0.4, min: 0.3, max: 3.5 };

/// A log-normal distribution whose values are clamped to a range.
#[derive(Debug, Clone, Copy)]
struct ClampedLogNormal {
    median: f64,
    sigma: f64,
    min: f64,
    max: f64,
}

/// Text tokens per image of LAION-2B: 16.4 on average.
const LAION_TEXT: ClampedLogNormal =
    ClampedLogNormal { median: 13.7, sigma: 0.6, min: 1.0, max: 77.0 };
/// Text tokens per image of OBELICS: 0.4 to 3,115, and 326 on average (115e9 tokens, 353e6 images).
const OBELICS_TEXT: ClampedLogNormal =
    ClampedLogNormal { median: 90.0, sigma: 1.6, min: 0.4, max: 3115.0 };
/// The probability that an OBELICS document has one more image: 2.5 images on average.
const OBELICS_NEXT_IMAGE: f64 = 0.6;
/// Text tokens of a ScienceQA item: question, lecture and solution.
const SCIENCE_QA_TEXT: ClampedLogNormal =
    ClampedLogNormal { median: 120.0, sigma: 0.6, min: 10.0, max: 1000.0 };
/// The share of ScienceQA questions with an image.
const SCIENCE_QA_IMAGE: f64 = 0.487;
/// Seconds of speech, at most one window of Whisper.
const SOUND_SECONDS: ClampedLogNormal =
    ClampedLogNormal { median: 8.0, sigma: 0.6, min: 1.0, max: 30.0 };
/// Transcript tokens per second of speech.
const SPEECH_TOKENS_PER_SECOND: f64 = 3.0;

/// A data set of videos.
struct VideoSource {
    /// Its share of all clips.
    share: f64,
    seconds: ClampedLogNormal,
    caption: ClampedLogNormal,
}

/// ShareGPT4Video (long captions), InternVid (short captions), MMTrail-2M (scenes of trailers).
const VIDEOS: [VideoSource; 3] = [
    VideoSource {
        share: 0.3,
        seconds: ClampedLogNormal { median: 14.0, sigma: 0.5, min: 4.0, max: 16.0 },
        caption: ClampedLogNormal { median: 270.0, sigma: 0.35, min: 40.0, max: 1000.0 },
    },
    VideoSource {
        share: 0.4,
        seconds: ClampedLogNormal { median: 9.0, sigma: 0.6, min: 3.0, max: 16.0 },
        caption: ClampedLogNormal { median: 18.0, sigma: 0.4, min: 5.0, max: 77.0 },
    },
    VideoSource {
        share: 0.3,
        seconds: ClampedLogNormal { median: 4.0, sigma: 0.4, min: 2.0, max: 16.0 },
        caption: ClampedLogNormal { median: 60.0, sigma: 0.5, min: 10.0, max: 300.0 },
    },
];

/// A data set of documents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source {
    Laion,
    Obelics,
    ScienceQa,
    Speech,
    Text,
}

/// The sizes of one document.
#[derive(Debug, Clone, Copy, Default)]
pub struct DocumentSizes {
    pub images: u32,
    pub text_tokens: u64,
    pub sound_seconds: Option<f64>,
}

impl Source {
    /// The sources for a model with these encoders. Empty without encoders.
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

    /// The relative share of the stretches that take documents from this source.
    fn share(self) -> f64 {
        match self {
            Self::Laion => 0.15,
            Self::Obelics => 0.65,
            Self::ScienceQa => 0.2,
            Self::Speech => 0.4,
            Self::Text => 1.0,
        }
    }

    /// Draws one of `sources` by share. Returns [`Source::Text`] if there are none.
    pub fn draw(sources: &[Self], rng: &mut impl Rng) -> Self {
        sources.choose_weighted(rng, |s| s.share()).copied().unwrap_or(Self::Text)
    }

    /// Draws one of the `sources` with much image or sound for little text. Returns [`Source::Text`] if there are none.
    pub fn densest(sources: &[Self], rng: &mut impl Rng) -> Self {
        let dense: Vec<Self> =
            sources.iter().copied().filter(|s| matches!(s, Self::Laion | Self::Speech)).collect();
        Self::draw(&dense, rng)
    }

    /// Draws a document. Its text is `scale` times as long as in the data set, and at least one token.
    pub fn document(self, rng: &mut impl Rng, scale: f64) -> DocumentSizes {
        let tokens = |tokens: f64| (tokens * scale).round().max(1.0) as u64;
        match self {
            Self::Laion => DocumentSizes {
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
                DocumentSizes { images, text_tokens: tokens(text), sound_seconds: None }
            }
            Self::ScienceQa => DocumentSizes {
                images: u32::from(rng.random_bool(SCIENCE_QA_IMAGE)),
                text_tokens: tokens(SCIENCE_QA_TEXT.draw(rng)),
                sound_seconds: None,
            },
            Self::Speech => {
                // Rounded, so that files stay short.
                let seconds = (SOUND_SECONDS.draw(rng) * 100.0).round() / 100.0;
                let text = tokens(seconds * SPEECH_TOKENS_PER_SECOND);
                DocumentSizes { images: 0, text_tokens: text, sound_seconds: Some(seconds) }
            }
            Self::Text => {
                let text_tokens = tokens(OBELICS_TEXT.draw(rng));
                DocumentSizes { images: 0, text_tokens, sound_seconds: None }
            }
        }
    }
}

/// Draws the size of a picture for an encoder whose images have different sizes. A typical picture has the encoder's own size, or
/// is some squares large if it is cut into tiles.
pub fn image_size(vit: &VitSpec, rng: &mut impl Rng) -> ImageSize {
    if let Some(tiles) = &vit.tiles {
        let own = f64::from(vit.image_px).powi(2);
        let pixels = TYPICAL_TILES * own * PICTURE_PIXELS.draw(rng);
        let aspect = PICTURE_ASPECT.draw(rng);
        let resolution = best_resolution(tiles, (pixels / aspect).sqrt(), aspect);
        return tiles.size(resolution, vit.image_size(), vit.image_px);
    }
    let token_px = f64::from(vit.patch_px * vit.merge);
    let own = f64::from(vit.image_px).powi(2);
    let (least, most) =
        vit.native.map_or((own, own), |range| (range.min_pixels as f64, range.max_pixels as f64));
    let pixels = (own * PICTURE_PIXELS.draw(rng)).clamp(least, most);
    let aspect = PICTURE_ASPECT.draw(rng);
    let tokens = |px: f64| (px / token_px).round().max(1.0);
    let mut columns = tokens((pixels * aspect).sqrt());
    let mut rows = tokens((pixels / aspect).sqrt());
    while columns * rows * token_px * token_px > most && columns * rows > 1.0 {
        if columns >= rows { columns -= 1.0 } else { rows -= 1.0 }
    }
    let tokens = (columns * rows) as u32;
    ImageSize { patches: tokens.saturating_mul(vit.merge.pow(2)), tokens, views: 1 }
}

/// The resolution at which a picture of `height` pixels keeps most of them, and of these the smallest.
fn best_resolution(tiles: &TileSpec, height: f64, aspect: f64) -> [u32; 2] {
    let width = height * aspect;
    let kept_and_saved = |&[h, w]: &[u32; 2]| {
        let scale = (f64::from(h) / height).min(f64::from(w) / width).min(1.0);
        (scale, -f64::from(h) * f64::from(w))
    };
    let all = tiles.resolutions.iter().copied();
    all.max_by(|a, b| kept_and_saved(a).partial_cmp(&kept_and_saved(b)).expect("sizes are finite"))
        .unwrap_or_default()
}

/// Draws a clip of at most `limit` seconds, in tenths of a second.
pub fn clip(rng: &mut impl Rng, limit: f64) -> ClipMeta {
    let videos = VIDEOS.choose_weighted(rng, |v| v.share).expect("shares are above 0");
    let seconds = (videos.seconds.draw(rng) * 10.0).round() / 10.0;
    let caption_tokens = videos.caption.draw(rng).round().max(1.0) as u64;
    ClipMeta { seconds: seconds.min(limit), caption_tokens, ..Default::default() }
}

impl ClampedLogNormal {
    fn draw(self, rng: &mut impl Rng) -> f64 {
        let distribution = LogNormal::new(self.median.ln(), self.sigma).expect("sigma is finite");
        distribution.sample(rng).clamp(self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn mean(distribution: ClampedLogNormal) -> f64 {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let n = 200_000;
        (0..n).map(|_| distribution.draw(&mut rng)).sum::<f64>() / f64::from(n)
    }

    #[test]
    fn means_match_the_data_sets() {
        let laion = mean(LAION_TEXT);
        assert!((laion / 16.4 - 1.0).abs() < 0.02, "{laion}");
        let obelics = mean(OBELICS_TEXT);
        assert!((obelics / 326.0 - 1.0).abs() < 0.25, "{obelics}");
    }
}
