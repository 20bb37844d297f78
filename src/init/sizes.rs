//! Sizes of sequences and pictures that suit the samples of a survey.

use dip_burn::train::{DataSurvey, RunConfig, SequenceConfig, SurveyedDocument, TrainError};
use dip_core::{ModelSpec, PixelRange, VitSpec};

use crate::run::RunError;

/// Sequence lengths are multiples of this, in tokens.
const STEP: u32 = 64;
/// Mean documents that a sequence has room for.
const DOCUMENTS: f64 = 4.0;
/// Share of the documents that fit the longest proposed sequence, and share that fit the shortest.
const LONGEST: f64 = 0.99;
const SHORTEST: f64 = 0.5;
/// Room for more images than a mean sequence has.
const SPARE_IMAGES: f64 = 1.5;

/// Sizes of a packed sequence, or of the clips of a microbatch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sizes {
    /// In place of the sizes of the model; `None` to keep those.
    tokens: Option<u32>,
    /// Most images of a sequence, and the patches of a mean one; `None` if the model sees none.
    images: Option<(u32, f64)>,
    /// Most tokens of a frame of a clip.
    frame_tokens: Option<u32>,
    /// Documents in a sequence, or clips in a microbatch, on average.
    pub documents_per_sequence: f64,
}

impl Sizes {
    /// The sizes that suit the samples, largest first, for a model at its largest sizes. Models that are trained from scratch keep
    /// theirs.
    pub fn candidates(model: &ModelSpec, survey: &DataSurvey, is_published: bool) -> Vec<Self> {
        let keep = |documents| Self {
            tokens: None,
            images: None,
            frame_tokens: None,
            documents_per_sequence: documents,
        };
        let most = model.sequence_tokens;
        let mean = mean(survey, |d| d.tokens.min(most.into()) as f64).max(1.0);
        if model.video().is_some() {
            let largest = survey.documents.iter().map(tokens_per_frame).max();
            let frame_tokens = largest.filter(|_| is_published);
            return vec![Self { frame_tokens, ..keep(f64::from(model.max_clips.max(1))) }];
        }
        if !is_published {
            return vec![keep((f64::from(most) / mean).max(1.0))];
        }
        let steps = |tokens: f64| {
            let tokens = tokens.ceil().min(f64::from(most)) as u32;
            tokens.max(1).next_multiple_of(STEP).min(most)
        };
        let length = |share| quantile(survey, share) as f64;
        let mut tokens = steps((DOCUMENTS * mean).max(length(LONGEST)));
        let shortest = steps(length(SHORTEST));
        let mut all = Vec::new();
        loop {
            all.push(Self::with_tokens(tokens, model, survey));
            if tokens <= shortest {
                return all;
            }
            tokens = steps(f64::from(tokens) / 2.0).max(shortest);
        }
    }

    fn with_tokens(tokens: u32, model: &ModelSpec, survey: &DataSurvey) -> Self {
        let length = mean(survey, |d| d.tokens.min(tokens.into()) as f64).max(1.0);
        let documents = (f64::from(tokens) / length).max(1.0);
        let pictures = mean(survey, |d| d.images.len() as f64);
        let patches = mean(survey, |d| d.images.iter().map(|i| f64::from(i.patches)).sum());
        let of_document = survey.documents.iter().map(|d| d.images.len()).max().unwrap_or(0);
        let sees = model.modules.iter().any(|m| m.kind.get::<VitSpec>().is_some());
        let images = (documents * pictures * SPARE_IMAGES).ceil().max(of_document as f64);
        let images = images.clamp(1.0, f64::from(tokens)) as u32;
        let patches = if pictures > 0.0 { patches / pictures } else { 0.0 };
        Self {
            tokens: Some(tokens),
            images: sees.then_some((images, patches)),
            frame_tokens: None,
            documents_per_sequence: documents,
        }
    }

    /// Writes the sizes into a run of `spec`.
    ///
    /// # Errors
    /// [`RunError`] if the files of the image processor cannot be used.
    pub fn apply(&self, config: &mut RunConfig, spec: &ModelSpec) -> Result<(), RunError> {
        if self.tokens.is_none() && self.frame_tokens.is_none() {
            return Ok(());
        }
        let images = self.images.map(|(images, _)| images);
        let (tokens, frame_tokens) = (self.tokens, self.frame_tokens);
        let mut sequence = SequenceConfig { tokens, images, frame_tokens, ..Default::default() };
        config.sequence = Some(sequence);
        // The length of a sequence limits the pixels of a picture.
        let mut model = spec.clone();
        config.read_image_processor(&mut model).map_err(TrainError::from)?;
        let vit = model.modules.iter().find_map(|module| module.kind.get::<VitSpec>());
        let Some((vit, (images, patches))) = vit.zip(self.images) else { return Ok(()) };
        if let Some(range) = vit.native {
            let side = typical_side(vit, range, patches);
            let typical = u64::from(side / vit.patch_px).pow(2) * u64::from(images);
            sequence.image_px = Some(side);
            sequence.image_patches = Some(typical.max(vit.largest_size().patches.into()));
            config.sequence = Some(sequence);
        } else if vit.tiles.is_some() {
            let mean = (patches * f64::from(images)).ceil() as u64;
            sequence.image_patches = Some(mean.max(vit.largest_size().patches.into()));
            config.sequence = Some(sequence);
        }
        Ok(())
    }
}

/// The side of a square picture of `patches` patches, or the nearest one within the limits.
fn typical_side(vit: &VitSpec, range: PixelRange, patches: f64) -> u32 {
    let token_px = u64::from(vit.patch_px) * u64::from(vit.merge);
    let least = range.min_pixels.saturating_sub(1).isqrt() / token_px + 1;
    let most = range.max_pixels.isqrt() / token_px;
    let tokens = (patches.sqrt() / f64::from(vit.merge)).round() as u64;
    let tokens = tokens.min(most).max(least.min(most)).max(1);
    u32::try_from(tokens * token_px).unwrap_or(vit.image_px)
}

fn tokens_per_frame(clip: &SurveyedDocument) -> u32 {
    u32::try_from(clip.tokens / u64::from(clip.frames.max(1))).unwrap_or(u32::MAX)
}

/// The mean of a figure over all documents; 0 without documents.
pub(super) fn mean(survey: &DataSurvey, figure: impl Fn(&SurveyedDocument) -> f64) -> f64 {
    let sum: f64 = survey.documents.iter().map(figure).sum();
    sum / survey.documents.len().max(1) as f64
}

/// The length that this share of the documents does not exceed, in tokens.
pub(super) fn quantile(survey: &DataSurvey, share: f64) -> u64 {
    let mut lengths: Vec<u64> = survey.documents.iter().map(|d| d.tokens).collect();
    lengths.sort_unstable();
    let last = lengths.len().saturating_sub(1);
    lengths.get((last as f64 * share).ceil() as usize).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(lengths: &[u64]) -> DataSurvey {
        let document = |&tokens: &u64| SurveyedDocument { tokens, ..Default::default() };
        let documents = lengths.iter().map(document).collect();
        DataSurvey { documents, ..DataSurvey::default() }
    }

    #[test]
    fn sequences_hold_the_long_documents_and_several_mean_ones() {
        let model = dip_core::presets::model("vlm-s").unwrap();
        let tokens = |lengths: &[u64]| {
            let all = Sizes::candidates(&model, &survey(lengths), true);
            all.iter().map(|sizes| sizes.tokens.unwrap()).collect::<Vec<_>>()
        };
        // Four documents of 100 tokens; then fewer, down to one.
        assert_eq!(tokens(&[100; 9]), [448, 256, 128]);
        assert_eq!(tokens(&[100, 100, 1000]), [1600, 832, 448, 256, 128]);
        assert_eq!(tokens(&[1 << 40])[0], model.sequence_tokens);
    }

    #[test]
    fn a_typical_picture_stays_within_the_limits() {
        let vit = VitSpec::squares(448, 14, 2, dip_core::Tower::Qwen2Vl);
        let side = |least, most, patches| {
            typical_side(&vit, PixelRange { min_pixels: least, max_pixels: most }, patches)
        };
        assert_eq!(side(784, 1 << 20, 400.0), 280);
        assert_eq!(side(100_000, 1 << 20, 4.0), 336);
        assert_eq!(side(784, 50_000, 4e6), 196);
    }
}
