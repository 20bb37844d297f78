//! Documents or captioned videos from WebDataset shards, shuffled by seed, from any saved position.

mod find;
mod headers;
mod sample;
mod shard;

pub use sample::SizeLimits;

use std::hash::Hasher;
use std::path::PathBuf;

use dip_core::FieldError;
use fnv::FnvHasher;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::error::DataError;
use super::skip::{SkipCounts, SkipReason};
use super::source::{DataSource, SourcePosition};
use super::video::CaptionedVideo;
use shard::TarShard;

/// Most samples of the shuffle buffer.
const MAX_BUFFER: usize = 1 << 20;
/// Most shards that are open at once.
const OPEN_SHARDS: usize = 32;

/// How shards are read.
#[derive(Debug, Clone, PartialEq)]
pub struct WebDatasetConfig {
    /// Seed of the order.
    pub seed: u64,
    /// Samples to draw the next one from; 1 keeps the order of the shards and of their samples.
    pub shuffle_buffer: usize,
    /// Largest sizes that are read.
    pub limits: SizeLimits,
}

impl Default for WebDatasetConfig {
    fn default() -> Self {
        Self { seed: 0, shuffle_buffer: 1024, limits: SizeLimits::default() }
    }
}

/// Documents from tar shards, epoch after epoch. Each epoch reads each sample once.
///
/// Each epoch shuffles the shards. Their samples then pass through a buffer, from which the next sample is drawn at random. The
/// buffer holds references to samples instead of their pictures, so it is small enough to be saved in a position.
#[derive(Debug)]
pub struct WebDataset<D = Document> {
    read: ReadSample<D>,
    config: WebDatasetConfig,
    shards: Vec<PathBuf>,
    fingerprint: u64,
    open: Vec<(u32, TarShard)>,
    order: Vec<u32>,
    at: ShardsPosition,
    /// Usable samples since the epoch began.
    used: u64,
}

/// Reads a sample of a shard as a document.
type ReadSample<D> =
    fn(&mut TarShard, usize, &SizeLimits) -> Result<Result<D, SkipReason>, DataError>;

/// The place of a sample: its shard, and its number there.
type Place = (u32, u32);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardsPosition {
    fingerprint: u64,
    epoch: u64,
    /// Next shard in the epoch's order.
    shard: usize,
    /// Next sample of that shard.
    sample: u32,
    /// Samples drawn in this epoch.
    drawn: u64,
    buffer: Vec<Place>,
    skipped: SkipCounts,
}

impl WebDataset {
    /// Opens shards of texts and pictures: `.tar` files, folders of them, or patterns with `*` and `?` in the file name.
    ///
    /// # Errors
    /// [`DataError`] names the path: nothing there, not readable, or not a tar.
    pub fn open(paths: &[PathBuf], config: WebDatasetConfig) -> Result<Self, DataError> {
        Self::open_with(paths, config, TarShard::read)
    }
}

impl WebDataset<CaptionedVideo> {
    /// Opens shards of captioned videos.
    ///
    /// The caption is a `.txt`, or `text` or `caption` in a `.json`. The video is a `.gif`, an animated `.webp`, an `.mp4` or
    /// `.webm`, latents in a `.safetensors`, or numbered pictures such as `a.000.png` with their rate as `fps` in the `.json`.
    ///
    /// # Errors
    /// As [`WebDataset::open`].
    pub fn open_videos(paths: &[PathBuf], config: WebDatasetConfig) -> Result<Self, DataError> {
        Self::open_with(paths, config, TarShard::read_video)
    }
}

impl<D> WebDataset<D> {
    fn open_with(
        paths: &[PathBuf],
        config: WebDatasetConfig,
        read: ReadSample<D>,
    ) -> Result<Self, DataError> {
        let remedy = "try 1024, or 1 for no shuffling";
        let buffer = config.shuffle_buffer;
        FieldError::check_range("shuffle_buffer", buffer, 1..=MAX_BUFFER, remedy)?;
        let shards = find::find_shards(paths)?;
        // Names and sizes of the shards identify the data set.
        let mut hash = FnvHasher::default();
        for path in &shards {
            let bytes = TarShard::probe(path)?;
            hash.write(path.file_name().unwrap_or_default().as_encoded_bytes());
            hash.write(&bytes.to_le_bytes());
        }
        let fingerprint = hash.finish();
        let mut new = Self {
            read,
            order: Vec::new(),
            open: Vec::new(),
            at: ShardsPosition {
                fingerprint,
                epoch: 0,
                shard: 0,
                sample: 0,
                drawn: 0,
                buffer: Vec::new(),
                skipped: SkipCounts::default(),
            },
            fingerprint,
            used: 0,
            config,
            shards,
        };
        new.order = new.shard_order(0);
        Ok(new)
    }

    /// The next document of this epoch; `None` at its end, after which the next epoch begins.
    ///
    /// # Errors
    /// [`DataError`] if a shard has become unreadable.
    pub fn next_in_epoch(&mut self) -> Result<Option<D>, DataError> {
        loop {
            self.fill_buffer()?;
            if self.at.buffer.is_empty() {
                self.begin_next_epoch();
                return Ok(None);
            }
            let drawn = self.draw();
            let limits = self.config.limits;
            let read = self.read;
            match read(self.shard(drawn.0)?, drawn.1 as usize, &limits)? {
                Ok(document) => {
                    self.used += 1;
                    return Ok(Some(document));
                }
                Err(reason) => self.at.skipped.add(reason),
            }
        }
    }

    fn fill_buffer(&mut self) -> Result<(), DataError> {
        while self.at.buffer.len() < self.config.shuffle_buffer && self.at.shard < self.order.len()
        {
            let number = self.order[self.at.shard];
            let shard = self.shard(number)?;
            let (samples, broken) = (shard.samples() as u32, shard.broken);
            if self.at.sample < samples {
                self.at.buffer.push((number, self.at.sample));
                self.at.sample += 1;
            } else {
                if broken {
                    self.at.skipped.add(SkipReason::BrokenShard);
                }
                (self.at.shard, self.at.sample) = (self.at.shard + 1, 0);
            }
        }
        Ok(())
    }

    fn draw(&mut self) -> Place {
        let at = &mut self.at;
        let n = at.buffer.len();
        at.drawn += 1;
        if self.config.shuffle_buffer == 1 {
            return at.buffer.remove(0);
        }
        let mut rng = rng(self.config.seed, at.epoch, at.drawn);
        at.buffer.swap_remove(rng.random_range(0..n))
    }

    fn begin_next_epoch(&mut self) {
        let epoch = self.at.epoch + 1;
        self.at = ShardsPosition { epoch, shard: 0, sample: 0, drawn: 0, ..self.at.clone() };
        self.order = self.shard_order(epoch);
        self.used = 0;
    }

    fn shard_order(&self, epoch: u64) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.shards.len() as u32).collect();
        if self.config.shuffle_buffer > 1 {
            order.shuffle(&mut rng(self.config.seed, epoch, 0));
        }
        order
    }

    fn shard(&mut self, number: u32) -> Result<&mut TarShard, DataError> {
        if let Some(i) = self.open.iter().position(|(n, _)| *n == number) {
            let found = self.open.remove(i);
            self.open.push(found);
        } else {
            if self.open.len() == OPEN_SHARDS {
                self.open.remove(0);
            }
            self.open.push((number, TarShard::open(&self.shards[number as usize])?));
        }
        Ok(&mut self.open.last_mut().expect("one was just put there").1)
    }
}

impl<D> DataSource<D> for WebDataset<D> {
    fn next_document(&mut self) -> Result<D, DataError> {
        loop {
            let (fresh, used) = (self.at.drawn == 0, self.used);
            if let Some(document) = self.next_in_epoch()? {
                return Ok(document);
            }
            // This epoch was read from its beginning, and gave no document.
            if fresh && used == 0 {
                return Err(DataError::NoSamples {
                    what: self.shards[0].display().to_string(),
                    skipped: self.at.skipped.clone(),
                });
            }
        }
    }

    fn position(&self) -> SourcePosition {
        SourcePosition::new(&self.at)
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        let at: ShardsPosition = position.get()?;
        let differs = |reason: &str| Err(DataError::position(reason));
        if at.fingerprint != self.fingerprint {
            return differs("the shards have other names or sizes");
        }
        let order = self.shard_order(at.epoch);
        let known = |&(shard, _): &Place| (shard as usize) < self.shards.len();
        if at.shard > order.len() || !at.buffer.iter().all(known) {
            return differs("it names shards that are not there");
        }
        if at.buffer.len() > self.config.shuffle_buffer {
            return differs("its shuffle buffer is larger");
        }
        (self.at, self.order, self.used) = (at, order, 0);
        Ok(())
    }

    fn passes(&self) -> u64 {
        self.at.epoch
    }

    fn skipped(&self) -> SkipCounts {
        self.at.skipped.clone()
    }
}

/// The generator of one draw. Each draw has its own, so that a position needs no generator's state.
fn rng(seed: u64, epoch: u64, draw: u64) -> ChaCha8Rng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&epoch.to_le_bytes());
    bytes[16..24].copy_from_slice(&draw.to_le_bytes());
    ChaCha8Rng::from_seed(bytes)
}

#[cfg(test)]
mod tests;
