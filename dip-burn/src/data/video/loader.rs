//! Makes batches of clips on a thread of its own, with a position after each.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use dip_core::{BatchMeta, FieldError};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::flow::noisy;
use super::grid::LatentShape;
use super::packed::{self, ReadyClip};
use super::{CaptionedVideo, VideoError};
use crate::batch::Microbatch;
use crate::data::error::{DataError, TokenizeError};
use crate::data::skip::{SkipCounts, SkipReason};
use crate::data::source::{DataSource, SourcePosition, UsableWatch};
use crate::data::tokenizer::Tokenizer;

/// Keeps the random numbers of the caption dropout different from those of noise and times.
const DROPOUT_SEED: u64 = 0xd809_07ca_9710_4d1b;

/// How batches of clips are made.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipLoaderConfig {
    /// The tokens of a clip.
    pub shape: LatentShape,
    /// Most clips of a microbatch.
    pub max_clips: u32,
    /// Most latent frames of a microbatch; longer clips are cut to it.
    pub max_frames: u32,
    /// Most tokens of a caption; longer captions are cut to it.
    pub caption_tokens: u32,
    /// Microbatches of a batch.
    pub microbatches: u32,
    /// Least clip tokens of a batch; if set, it replaces `microbatches`.
    pub tokens_per_batch: Option<u64>,
    /// Fraction of clips with an empty caption, for guidance.
    pub caption_dropout: f64,
    /// Seed of noise, times and dropout.
    pub seed: u64,
    /// Most batches that are decoded ahead.
    pub prefetch: usize,
}

/// A batch of clips.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipBatch {
    /// Metadata for the planner; its iteration is the number of the batch, from 0.
    pub meta: BatchMeta,
    /// The microbatches.
    pub microbatches: Vec<Microbatch>,
    /// The position after the batch.
    pub position: ClipPosition,
    /// Videos skipped since the beginning of the data.
    pub skipped: SkipCounts,
}

/// The position of a [`ClipLoader`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipPosition {
    /// Batches before the position.
    pub batches: u64,
    /// Clips before the position.
    clips: u64,
    source: SourcePosition,
    /// Videos that the loader skipped itself.
    skipped: SkipCounts,
}

/// Makes batches from the videos of a source.
///
/// Each microbatch takes as many clips, in the order of the source, as fit its limits.
pub struct ClipLoader {
    /// The reader, until its thread starts.
    reader: Option<Reader>,
    running: Option<Running>,
    position: ClipPosition,
    skipped: SkipCounts,
}

struct Running {
    batches: Receiver<Result<ClipBatch, DataError>>,
    thread: JoinHandle<Reader>,
}

impl ClipLoader {
    /// A loader that begins at the source's current position.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a setting outside its limit.
    pub fn new(
        source: Box<dyn DataSource<CaptionedVideo>>,
        tokenizer: Arc<Tokenizer>,
        config: ClipLoaderConfig,
    ) -> Result<Self, DataError> {
        config.validate()?;
        let config = Arc::new(config);
        let watch = match source.passes() {
            0 => UsableWatch::from_start(),
            pass => UsableWatch::new(pass),
        };
        let reader = Reader {
            source,
            tokenizer,
            config,
            waiting: None,
            batches: 0,
            clips: 0,
            skipped: SkipCounts::default(),
            watch,
        };
        let (position, skipped) = (reader.position(), reader.all_skipped());
        Ok(Self { reader: Some(reader), running: None, position, skipped })
    }

    /// The next batch.
    ///
    /// # Errors
    /// [`DataError`] if the source has no more usable videos.
    pub fn next_batch(&mut self) -> Result<ClipBatch, DataError> {
        if let Some(reader) = self.reader.take() {
            self.running = Some(reader.start()?);
        }
        let running = self.running.as_ref().ok_or(DataError::DecoderGone)?;
        let batch = running.batches.recv().map_err(|_| DataError::DecoderGone)??;
        self.position = batch.position.clone();
        self.skipped = batch.skipped.clone();
        Ok(batch)
    }

    /// The position after the last batch.
    pub fn position(&self) -> &ClipPosition {
        &self.position
    }

    /// The videos skipped up to that position.
    pub fn skipped(&self) -> &SkipCounts {
        &self.skipped
    }

    /// Goes to a position: the same batches follow as when it was saved.
    ///
    /// # Errors
    /// [`DataError::Position`] if it belongs to other data.
    pub fn restore(&mut self, position: &ClipPosition) -> Result<(), DataError> {
        let mut reader = match (self.reader.take(), self.running.take()) {
            (Some(reader), _) => reader,
            (None, Some(running)) => running.stop()?,
            (None, None) => return Err(DataError::DecoderGone),
        };
        reader.restore(position)?;
        (self.position, self.skipped) = (position.clone(), reader.all_skipped());
        self.reader = Some(reader);
        Ok(())
    }
}

impl Running {
    /// Ends the thread and drops the batches that it has read ahead.
    fn stop(self) -> Result<Reader, DataError> {
        drop(self.batches);
        self.thread.join().map_err(|_| DataError::DecoderGone)
    }
}

impl Drop for ClipLoader {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.stop();
        }
    }
}

impl ClipLoaderConfig {
    fn wants_more(&self, microbatches: usize, tokens: u64) -> bool {
        match self.tokens_per_batch {
            Some(budget) => tokens < budget,
            None => microbatches < self.microbatches as usize,
        }
    }

    fn validate(&self) -> Result<(), FieldError> {
        let remedy = "try a few for each rank";
        FieldError::check_range("microbatches", self.microbatches, 1..=65_536, remedy)?;
        let remedy = "give the model's max_clips, try 8";
        FieldError::check_range("max_clips", self.max_clips, 1..=4096, remedy)?;
        let frames = 1..=1 << 20;
        FieldError::check_range("frames of a microbatch", self.max_frames, frames, "try 64")?;
        let remedy = "raise sequence_tokens of the model";
        let tokens = 2..=1 << 20;
        FieldError::check_range("tokens of a caption", self.caption_tokens, tokens, remedy)?;
        FieldError::check_range("prefetch", self.prefetch, 1..=1024, "try 2")
    }
}

/// Reads, decodes and packs.
struct Reader {
    source: Box<dyn DataSource<CaptionedVideo>>,
    tokenizer: Arc<Tokenizer>,
    config: Arc<ClipLoaderConfig>,
    /// A clip that did not fit the last microbatch.
    waiting: Option<Waiting>,
    batches: u64,
    clips: u64,
    skipped: SkipCounts,
    watch: UsableWatch,
}

/// A clip, and the position of the source before it.
struct Waiting {
    clip: ReadyClip,
    before: SourcePosition,
}

impl Reader {
    fn start(mut self) -> Result<Running, DataError> {
        let (sender, batches) = sync_channel(self.config.prefetch);
        let run = move || {
            loop {
                let batch = self.batch();
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return self;
                }
            }
        };
        let thread = std::thread::Builder::new().name("dip-decode".into()).spawn(run);
        thread.map(|thread| Running { batches, thread }).map_err(|_| DataError::DecoderGone)
    }

    fn batch(&mut self) -> Result<ClipBatch, DataError> {
        let (config, iteration) = (self.config.clone(), self.batches);
        let (mut metas, mut microbatches) = (Vec::new(), Vec::new());
        let mut tokens = 0;
        while config.wants_more(microbatches.len(), tokens) {
            let clips = self.microbatch()?;
            metas.push(packed::meta(&clips, &config.shape));
            let add_noise = |clip: &ReadyClip| noisy(&clip.latents, config.seed, clip.number);
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
    fn read(&mut self) -> Result<Waiting, DataError> {
        loop {
            let before = self.source.position();
            let captioned = self.source.next_document()?;
            let pass = self.source.passes();
            let reason = match self.clip(captioned)? {
                Ok(clip) => {
                    self.watch.usable(pass);
                    return Ok(Waiting { clip, before });
                }
                Err(reason) => reason,
            };
            if self.watch.unusable(pass) {
                let (what, skipped) = ("the data source".into(), self.all_skipped());
                return Err(DataError::NoSamples { what, skipped });
            }
            self.skipped.add(reason);
        }
    }

    /// Decodes a video and its caption. The inner error says why to skip it.
    fn clip(&self, captioned: CaptionedVideo) -> Result<Result<ReadyClip, SkipReason>, DataError> {
        let CaptionedVideo { video, caption } = captioned;
        let latents = match video.latents(&self.config.shape, self.config.max_frames) {
            Ok(latents) => latents,
            Err(error @ (VideoError::NoFfmpeg(_) | VideoError::NotPixels { .. })) => {
                return Err(DataError::other(error));
            }
            Err(_) => return Ok(Err(SkipReason::BrokenVideo)),
        };
        let number = self.clips;
        let caption = self.caption(&caption, number).ok_or(SkipReason::Untokenizable);
        Ok(caption.map(|caption| ReadyClip { latents, caption, number }))
    }

    /// The tokens of a caption, or of an empty one if it is dropped; `None` if it cannot be tokenized.
    fn caption(&self, caption: &str, number: u64) -> Option<Vec<u32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed ^ DROPOUT_SEED);
        rng.set_stream(number);
        let dropped = rng.random_bool(self.config.caption_dropout.clamp(0.0, 1.0));
        let caption = if dropped { "" } else { caption };
        let most = self.config.caption_tokens as usize;
        caption_tokens(&self.tokenizer, caption, most).ok()
    }

    fn all_skipped(&self) -> SkipCounts {
        let mut all = self.source.skipped();
        all.merge(&self.skipped);
        all
    }

    fn position(&self) -> ClipPosition {
        let source = match &self.waiting {
            Some(waiting) => waiting.before.clone(),
            None => self.source.position(),
        };
        let skipped = self.skipped.clone();
        ClipPosition { batches: self.batches, clips: self.clips, source, skipped }
    }

    fn restore(&mut self, position: &ClipPosition) -> Result<(), DataError> {
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
    let special = tokenizer.special();
    let mut tokens = vec![special.bos];
    tokens.extend(tokenizer.encode(caption)?);
    tokens.truncate(most.saturating_sub(1).max(1));
    tokens.push(special.eos);
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::toy::{MovingConfig, MovingShapes, Split};

    fn loader() -> ClipLoader {
        let source = MovingShapes::new(MovingConfig { seed: 3, split: Split::Train });
        let shape = LatentShape { frames_per_second: 3.0, tokens_per_frame: 48, values: 48 };
        let config = ClipLoaderConfig {
            shape,
            max_clips: 4,
            max_frames: 20,
            caption_tokens: 30,
            microbatches: 3,
            tokens_per_batch: None,
            caption_dropout: 0.2,
            seed: 3,
            prefetch: 2,
        };
        ClipLoader::new(Box::new(source), Arc::new(Tokenizer::bytes()), config).unwrap()
    }

    #[test]
    fn batches_keep_their_limits_and_vary() {
        let mut loader = loader();
        let batches: Vec<ClipBatch> = (0..8).map(|_| loader.next_batch().unwrap()).collect();
        let metas = || batches.iter().flat_map(|b| &b.meta.microbatches);
        for (meta, m) in metas().zip(batches.iter().flat_map(|b| &b.microbatches)) {
            let seconds: f64 = meta.clips.iter().map(|c| c.seconds).sum();
            assert!((1..=4).contains(&meta.clips.len()) && seconds * 3.0 < 20.5);
            let tokens: u64 = meta.clips.iter().map(|c| c.caption_tokens).sum();
            assert_eq!((m.clips.len(), m.tokens.len() as u64), (meta.clips.len(), tokens));
        }
        let clips = || metas().flat_map(|m| &m.clips);
        let dropped = clips().filter(|c| c.caption_tokens == 2).count();
        assert!(dropped > 2 && dropped < clips().count() / 2, "{dropped}");
        assert!(clips().any(|c| c.seconds == 3.0) && clips().any(|c| c.seconds == 1.0));
        assert!(clips().any(|c| c.tokens_per_frame == Some(16)));
    }

    #[test]
    fn a_restored_loader_gives_the_batches_that_followed_with_the_same_noise() {
        let mut whole = loader();
        let batches: Vec<ClipBatch> = (0..9).map(|_| whole.next_batch().unwrap()).collect();
        for saved in [0, 3, 7] {
            let text = serde_json::to_string(&batches[saved].position).unwrap();
            let position: ClipPosition = serde_json::from_str(&text).unwrap();
            for mut again in [loader(), {
                let mut used = loader();
                used.next_batch().unwrap();
                used
            }] {
                again.restore(&position).unwrap();
                for expected in &batches[saved + 1..] {
                    assert_eq!(&again.next_batch().unwrap(), expected);
                }
            }
        }
    }
}
