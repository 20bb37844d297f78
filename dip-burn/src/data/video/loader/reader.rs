//! Reads, decodes and packs clips.

use std::sync::Arc;

use dip_core::BatchMeta;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::batch::{ClipBatch, ClipPosition};
use super::config::ClipLoaderConfig;
use crate::data::error::{DataError, TokenizeError};
use crate::data::picture::PictureError;
use crate::data::skip::{SkipCounts, SkipReason};
use crate::data::source::{DataSource, SourcePosition, UsableWatch};
use crate::data::tokenizer::Tokenizer;
use crate::data::video::packed::{self, ReadyClip};
use crate::data::video::{CaptionedVideo, VideoError};

/// Separates the random numbers of the caption dropout from the random numbers of noise and times.
const DROPOUT_SEED: u64 = 0xd809_07ca_9710_4d1b;

/// Reads, decodes and packs.
pub(super) struct ClipReader {
    source: Box<dyn DataSource<CaptionedVideo>>,
    tokenizer: Arc<Tokenizer>,
    config: Arc<ClipLoaderConfig>,
    /// A clip that did not fit the last microbatch.
    waiting: Option<WaitingClip>,
    batches: u64,
    clips: u64,
    skipped: SkipCounts,
    watch: UsableWatch,
    /// The first latents that did not fit the model, until others do.
    unfit: Option<VideoError>,
}

/// A clip, and the position of the source before it.
struct WaitingClip {
    clip: ReadyClip,
    before: SourcePosition,
}

impl ClipReader {
    /// A reader that begins at the source's current position.
    pub fn new(
        source: Box<dyn DataSource<CaptionedVideo>>,
        tokenizer: Arc<Tokenizer>,
        config: Arc<ClipLoaderConfig>,
    ) -> Self {
        Self {
            watch: UsableWatch::at_opening(source.passes()),
            source,
            tokenizer,
            config,
            waiting: None,
            batches: 0,
            clips: 0,
            skipped: SkipCounts::default(),
            unfit: None,
        }
    }

    /// Batches that may be decoded ahead.
    pub fn prefetch(&self) -> usize {
        self.config.prefetch
    }

    /// The next batch.
    pub fn batch(&mut self) -> Result<ClipBatch, DataError> {
        let (config, iteration) = (self.config.clone(), self.batches);
        let (mut metas, mut microbatches) = (Vec::new(), Vec::new());
        let mut tokens = 0;
        while config.needs_more(microbatches.len(), tokens) {
            let clips = self.microbatch()?;
            metas.push(packed::meta(&clips, &config.shape));
            let add_noise =
                |clip: &ReadyClip| config.times.noisy(&clip.latents, config.seed, clip.number);
            let microbatch = packed::microbatch(&clips, add_noise);
            tokens += microbatch.trained_tokens();
            microbatches.push(microbatch);
        }
        self.batches += 1;
        let meta = BatchMeta { iteration, microbatches: metas };
        let (position, skipped) = (self.position(), self.all_skipped());
        Ok(ClipBatch { meta, microbatches, position, skipped })
    }

    fn microbatch(&mut self) -> Result<Vec<ReadyClip>, DataError> {
        let (mut clips, mut frames) = (Vec::new(), 0);
        while clips.len() < self.config.max_clips as usize {
            let next = match self.waiting.take() {
                Some(waiting) => waiting,
                None => self.read()?,
            };
            frames += next.clip.latents.grid.frames;
            if frames > self.config.max_frames && !clips.is_empty() {
                self.waiting = Some(next);
                break;
            }
            self.clips += 1;
            clips.push(next.clip);
        }
        Ok(clips)
    }

    /// The next usable video.
    fn read(&mut self) -> Result<WaitingClip, DataError> {
        loop {
            let before = self.source.position();
            let captioned = self.source.next_document()?;
            let pass = self.source.passes();
            let reason = match self.clip(captioned)? {
                Ok(clip) => {
                    self.unfit = None;
                    self.watch.usable(pass);
                    return Ok(WaitingClip { clip, before });
                }
                Err(reason) => reason,
            };
            if self.watch.unusable(pass) {
                if let Some(error) = self.unfit.take() {
                    return Err(DataError::other(error));
                }
                let (what, skipped) = ("the data source".into(), self.all_skipped());
                return Err(DataError::NoSamples { what, skipped });
            }
            self.skipped.add(reason);
        }
    }

    /// Decodes a video and its caption. The inner error says why to skip it.
    fn clip(
        &mut self,
        captioned: CaptionedVideo,
    ) -> Result<Result<ReadyClip, SkipReason>, DataError> {
        let CaptionedVideo { video, caption } = captioned;
        let config = &*self.config;
        let statistics = config.statistics.as_ref();
        let latents = match video.normalised(&config.shape, config.max_frames, statistics) {
            Ok(latents) => latents,
            Err(VideoError::Picture(PictureError::Unreadable(error))) => return Err(*error),
            Err(error @ (VideoError::NoFfmpeg(_) | VideoError::NotPixels { .. })) => {
                return Err(DataError::other(error));
            }
            Err(error @ (VideoError::Shape { .. } | VideoError::Channels { .. })) => {
                self.unfit.get_or_insert(error);
                return Ok(Err(SkipReason::UnfitLatents));
            }
            Err(_) => return Ok(Err(SkipReason::BrokenVideo)),
        };
        let number = self.clips;
        let caption = self.caption(&caption, number).ok_or(SkipReason::Untokenizable);
        Ok(caption.map(|caption| ReadyClip { latents, caption, number }))
    }

    /// The tokens of a caption, or of the empty caption if it is dropped; `None` if it cannot be tokenized.
    fn caption(&self, caption: &str, number: u64) -> Option<Vec<u32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed ^ DROPOUT_SEED);
        rng.set_stream(number);
        let dropped = rng.random_bool(self.config.caption_dropout.clamp(0.0, 1.0));
        let caption = if dropped { "" } else { caption };
        let most = self.config.caption_tokens as usize;
        let caption = self.config.caption_text(caption);
        caption_tokens(&self.tokenizer, &caption, most).ok()
    }

    /// The videos skipped since the beginning of the data, by the source and the reader.
    pub fn all_skipped(&self) -> SkipCounts {
        let mut all = self.source.skipped();
        all.merge(&self.skipped);
        all
    }

    /// The current position.
    pub fn position(&self) -> ClipPosition {
        let source = match &self.waiting {
            Some(waiting) => waiting.before.clone(),
            None => self.source.position(),
        };
        let skipped = self.skipped.clone();
        ClipPosition { batches: self.batches, clips: self.clips, source, skipped }
    }

    /// Goes to a position.
    pub fn restore(&mut self, position: &ClipPosition) -> Result<(), DataError> {
        self.source.restore(&position.source)?;
        self.watch = UsableWatch::new(self.source.passes());
        self.waiting = None;
        (self.batches, self.clips) = (position.batches, position.clips);
        self.skipped = position.skipped.clone();
        Ok(())
    }
}

/// The tokens of a caption between its beginning and end marks, at most `most`.
///
/// # Errors
/// [`TokenizeError`] if the tokenizer refuses the text.
pub fn caption_tokens(
    tokenizer: &Tokenizer,
    caption: &str,
    most: usize,
) -> Result<Vec<u32>, TokenizeError> {
    let end = tokenizer.end();
    let mut tokens = tokenizer.begin().to_vec();
    tokens.extend(tokenizer.encode(caption)?);
    tokens.truncate(most.saturating_sub(end.len()).max(1));
    tokens.extend(end);
    Ok(tokens)
}
