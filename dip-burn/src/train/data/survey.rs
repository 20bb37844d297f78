//! What training data holds: the first samples, read through the tokenizer, template and processor of a run, and not decoded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dip_core::{ImageSize, ModelSpec};

use super::sources::{SampleCount, count_samples};
use super::{DataRequest, captions, check_vocabulary, clips, tokenizer};
use crate::data::{
    CaptionedVideo, DataError, DataSource, Document, LatentShape, MediaProcessor, SkipCounts,
    SkipReason, SkippedSample, Tokenizer, VideoError, WebDataset, caption_tokens,
};
use crate::train::{DataConfig, EvaluationConfig};

/// Samples after which a survey ends.
const MAX_SAMPLES: usize = 256;
/// Videos after which it ends: their frames are decoded.
const MAX_VIDEOS: usize = 32;
/// Time after which it ends.
const LONGEST: Duration = Duration::from_secs(10);

/// A sample of training data.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DataSurvey {
    /// Samples of one pass over the data; `None` for data that is drawn.
    pub samples: Option<SampleCount>,
    /// The usable samples that were read, in the order of the run.
    pub documents: Vec<SurveyedDocument>,
    /// Skipped samples, by reason.
    pub skipped: SkipCounts,
    /// The first skipped samples, a few for each reason.
    pub first_skipped: Vec<SkippedSample>,
}

/// What one sample holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SurveyedDocument {
    /// Tokens of the sequence, or of the clip, before anything is cut.
    pub tokens: u64,
    /// Those of text, or of the caption of a clip.
    pub text_tokens: u64,
    /// Those with a loss.
    pub trained_tokens: u64,
    /// Its pictures and videos, as the vision encoder sees them.
    pub images: Vec<ImageSize>,
    /// Number of videos among them.
    pub videos: u32,
    /// Lengths of its sounds, in seconds.
    pub sound_seconds: Vec<f64>,
    /// True if it has speakers.
    pub is_conversation: bool,
    /// Latent frames of a clip; 0 for documents.
    pub frames: u32,
}

impl DataSurvey {
    /// Reads the first samples of the data that a run of `model` names.
    ///
    /// # Errors
    /// [`DataError`] names the file or setting, or says why no sample can be used.
    pub fn read(model: &ModelSpec, data: &DataConfig, seed: u64) -> Result<Self, DataError> {
        let tokenizer = Arc::new(tokenizer(data.tokenizer.as_deref())?);
        check_vocabulary(model, &tokenizer)?;
        let evaluation = &EvaluationConfig::default();
        let request = DataRequest { model, data, evaluation, seed, tokenizer };
        match LatentShape::of(model) {
            Some(shape) => of_clips(&request, shape),
            None => of_documents(&request),
        }
    }

    /// The share of read samples that are usable; 1 if none was read.
    pub fn usable_share(&self) -> f64 {
        let usable = self.documents.len() as f64;
        let all = usable + self.skipped.total() as f64;
        if all > 0.0 { usable / all } else { 1.0 }
    }

    /// Usable samples of one pass, as far as the survey tells.
    pub fn usable_samples(&self) -> Option<f64> {
        self.samples.map(|count| count.samples as f64 * self.usable_share())
    }

    fn skip(&mut self, reason: SkipReason, name: String) {
        self.skipped.add(reason);
        SkippedSample::note(&mut self.first_skipped, reason, || name);
    }
}

fn of_documents(request: &DataRequest<'_>) -> Result<DataSurvey, DataError> {
    let DataRequest { model, data, seed, tokenizer, .. } = request;
    let media = captions::media_processor(data, model)?;
    let samples = count_samples(data, *seed, WebDataset::<Document>::open)?;
    let mut source = captions::train_source(data, &media, *seed)?;
    let survey = DataSurvey { samples, ..DataSurvey::default() };
    let read = |document: Document| of_document(&document, tokenizer, &media);
    read_samples(&mut *source, survey, MAX_SAMPLES, read)
}

fn of_document(
    document: &Document,
    tokenizer: &Tokenizer,
    media: &MediaProcessor,
) -> Result<SurveyedDocument, SkipReason> {
    let found = document.tokenize(tokenizer, media).map_err(|error| error.reason())?;
    let images: Vec<ImageSize> = found.pictures.iter().map(|p| p.layout.size()).collect();
    let shown: u64 = images.iter().map(|size| u64::from(size.tokens)).sum();
    let heard: u64 = found.sounds.iter().map(|s| u64::from(s.waveform.tokens)).sum();
    let tokens = found.tokens.len() as u64;
    let trained = found.trained.iter().skip(1).filter(|&&trained| trained).count() as u64;
    if trained == 0 {
        return Err(SkipReason::NothingFits);
    }
    Ok(SurveyedDocument {
        tokens,
        text_tokens: tokens - shown - heard,
        trained_tokens: trained,
        images,
        videos: document.videos().count() as u32,
        sound_seconds: found.sounds.iter().map(|s| s.waveform.seconds()).collect(),
        is_conversation: matches!(document, Document::Conversation(_)),
        frames: 0,
    })
}

fn of_clips(request: &DataRequest<'_>, shape: LatentShape) -> Result<DataSurvey, DataError> {
    let DataRequest { data, seed, tokenizer, .. } = request;
    let config = clips::clip_config(request, shape)?;
    let samples = count_samples(data, *seed, WebDataset::<CaptionedVideo>::open_videos)?;
    let mut source = clips::train_source(data, *seed)?;
    let survey = DataSurvey { samples, ..DataSurvey::default() };
    let read = |captioned: CaptionedVideo| {
        let CaptionedVideo { video, caption } = captioned;
        let statistics = config.statistics.as_ref();
        let latents = video.normalised(&config.shape, config.max_frames, statistics);
        let grid = latents.map_err(|error| unusable(&error))?.grid;
        let most = config.caption_tokens as usize;
        let text = caption_tokens(tokenizer, &config.caption_text(&caption), most);
        let text_tokens = text.map_err(|_| SkipReason::Untokenizable)?.len() as u64;
        let tokens = grid.tokens() as u64;
        let frames = grid.frames;
        let trained_tokens = tokens;
        Ok(SurveyedDocument { tokens, text_tokens, trained_tokens, frames, ..Default::default() })
    };
    read_samples(&mut *source, survey, MAX_VIDEOS, read)
}

/// Why a video is not used.
fn unusable(error: &VideoError) -> SkipReason {
    match error {
        VideoError::Shape { .. } | VideoError::Channels { .. } => SkipReason::UnfitLatents,
        _ => SkipReason::BrokenVideo,
    }
}

/// Reads samples until there are `most`, a pass is over, or the time is.
fn read_samples<D>(
    source: &mut dyn DataSource<D>,
    mut survey: DataSurvey,
    most: usize,
    mut read: impl FnMut(D) -> Result<SurveyedDocument, SkipReason>,
) -> Result<DataSurvey, DataError> {
    let start = Instant::now();
    while survey.documents.len() < most && start.elapsed() < LONGEST {
        let document = source.next_document()?;
        if source.passes() > 0 {
            break;
        }
        match read(document) {
            Ok(found) => survey.documents.push(found),
            Err(reason) => survey.skip(reason, source.last_name().unwrap_or_default()),
        }
    }
    survey.skipped.merge(&source.skipped());
    survey.first_skipped.extend(source.first_skipped());
    match survey.documents.is_empty() {
        false => Ok(survey),
        true => {
            let what = "the data".into();
            Err(DataError::NoSamples { what, skipped: survey.skipped })
        }
    }
}
