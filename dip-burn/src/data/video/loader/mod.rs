//! Makes batches of clips on a separate thread, each with the position after it.

mod batch;
mod config;
mod reader;

pub use batch::{ClipBatch, ClipPosition};
pub use config::{ClipLoaderConfig, joined_spaces};
pub use reader::caption_tokens;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::CaptionedVideo;
use crate::data::error::DataError;
use crate::data::skip::SkipCounts;
use crate::data::source::DataSource;
use crate::data::tokenizer::Tokenizer;
use reader::ClipReader;

/// Makes batches from the videos of a source.
///
/// Each microbatch takes clips in the order of the source until its limits are reached.
pub struct ClipLoader {
    /// The reader, until its thread starts.
    reader: Option<ClipReader>,
    running: Option<Running>,
    position: ClipPosition,
    skipped: SkipCounts,
}

struct Running {
    batches: Receiver<Result<ClipBatch, DataError>>,
    thread: JoinHandle<ClipReader>,
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
        let reader = ClipReader::new(source, tokenizer, Arc::new(config));
        let (position, skipped) = (reader.position(), reader.all_skipped());
        Ok(Self { reader: Some(reader), running: None, position, skipped })
    }

    /// The next batch.
    ///
    /// # Errors
    /// [`DataError`] if the source has no more usable videos.
    pub fn next_batch(&mut self) -> Result<ClipBatch, DataError> {
        if let Some(reader) = self.reader.take() {
            self.running = Some(Running::start(reader)?);
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
    fn start(mut reader: ClipReader) -> Result<Self, DataError> {
        let (sender, batches) = sync_channel(reader.prefetch());
        let run = move || {
            loop {
                let batch = reader.batch();
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return reader;
                }
            }
        };
        let thread = std::thread::Builder::new().name("dip-decode".into()).spawn(run);
        thread.map(|thread| Self { batches, thread }).map_err(|_| DataError::DecoderGone)
    }

    /// Ends the thread and drops the batches that it has read ahead.
    fn stop(self) -> Result<ClipReader, DataError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::toy::{DataSplit, MovingConfig, MovingShapes};
    use crate::data::video::{FlowTimes, LatentShape};

    fn loader() -> ClipLoader {
        let source = MovingShapes::new(MovingConfig { seed: 3, split: DataSplit::Train });
        let shape =
            LatentShape { frames_per_second: 3.0, tokens_per_frame: 48, values: 48, patch: None };
        let config = ClipLoaderConfig {
            shape,
            statistics: None,
            times: FlowTimes::default(),
            joins_spaces: false,
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
