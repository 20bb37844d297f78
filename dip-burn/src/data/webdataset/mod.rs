//! Documents or captioned videos from shards, shuffled by seed, from any saved position.
//!
//! A position names its shards by their names, lengths, first and last bytes. Shards may be added to a run that goes on; they join
//! with the next epoch.

#[cfg_attr(not(feature = "remote"), allow(dead_code, reason = "only shards by URL are kept"))]
mod cache;
mod find;
mod format;
mod headers;
mod identity;
mod index;
mod index_file;
mod indexing;
mod known;
#[cfg(feature = "parquet")]
mod parquet;
mod pictures;
#[cfg(feature = "remote")]
mod remote;
#[cfg(not(feature = "remote"))]
#[path = "without_remote.rs"]
mod remote;
mod sample;
mod shard;
mod unpack;

pub use cache::ShardCache;
pub use indexing::{IndexRequest, IndexedShard};
pub use known::MediaCounts;
pub use sample::SizeLimits;
pub use shard::Folders;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use dip_core::FieldError;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::error::DataError;
use super::skip::{SkipCounts, SkipReason, SkippedSample};
use super::source::{DataSource, SourcePosition};
use super::video::CaptionedVideo;
use identity::identity;
use known::KnownMedia;
use shard::Shard;

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
    /// Folders of pictures and of fetched shards.
    pub folders: Folders,
}

impl Default for WebDatasetConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            shuffle_buffer: 1024,
            limits: SizeLimits::default(),
            folders: Folders::default(),
        }
    }
}

/// Documents from shards, epoch after epoch. Each epoch reads each sample once. Shards are tars, plain or compressed with gzip or
/// Zstandard, JSON Lines, JSON arrays, and Parquet files with the feature `parquet`.
///
/// Each epoch shuffles the shards. Their samples then pass through a buffer, from which the next sample is drawn at random. The
/// buffer holds references to samples instead of their pictures, so it is small enough to be saved in a position.
#[derive(Debug)]
pub struct WebDataset<D = Document> {
    read: ReadSample<D>,
    config: WebDatasetConfig,
    /// The shards of this epoch, then those that join with the next.
    shards: Vec<PathBuf>,
    /// What tells their content apart, in the same order.
    identities: Arc<[u64]>,
    open: Vec<(u32, Shard)>,
    /// What is known of shards that were closed before all their samples were read, by identity.
    partly_known: HashMap<u64, KnownMedia>,
    /// False once an index could not be written.
    keeps_indexes: bool,
    order: Vec<u32>,
    at: ShardsPosition,
    /// Usable samples since the epoch began.
    used: u64,
    /// The first samples that were skipped since the opening.
    first_skipped: Vec<SkippedSample>,
    /// The place of the last document.
    last: Option<Place>,
}

/// Reads a sample of a shard as a document.
type ReadSample<D> = fn(&mut Shard, usize, &SizeLimits) -> Result<Result<D, SkipReason>, DataError>;

/// The place of a sample: its shard, and its number there.
type Place = (u32, u32);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardsPosition {
    /// The shards of this epoch.
    shards: Arc<[u64]>,
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
    /// Opens shards of texts and pictures: files, folders of them, or patterns with `*` and `?` in the file name.
    ///
    /// # Errors
    /// [`DataError`] names the path: nothing there, not readable, or no shard.
    pub fn open(paths: &[PathBuf], config: WebDatasetConfig) -> Result<Self, DataError> {
        Self::open_with(paths, config, Shard::read)
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
        Self::open_with(paths, config, Shard::read_video)
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
        let identities = shards.iter().map(|path| identity(path));
        let identities: Arc<[u64]> = identities.collect::<Result<_, _>>()?;
        let mut new = Self {
            read,
            order: Vec::new(),
            open: Vec::new(),
            partly_known: HashMap::new(),
            keeps_indexes: config.folders.indexes.is_some(),
            at: ShardsPosition {
                shards: identities.clone(),
                epoch: 0,
                shard: 0,
                sample: 0,
                drawn: 0,
                buffer: Vec::new(),
                skipped: SkipCounts::default(),
            },
            identities,
            first_skipped: Vec::new(),
            used: 0,
            last: None,
            config,
            shards,
        };
        new.order = new.shard_order(0);
        Ok(new)
    }

    /// The number of samples of one pass, usable or not. Opens at most `most` shards, and returns false if there are more: these
    /// count like the others.
    ///
    /// # Errors
    /// [`DataError`] if a shard cannot be read.
    pub fn count_samples(&mut self, most: usize) -> Result<(u64, bool), DataError> {
        let shards = self.shards.len();
        let opened = shards.min(most.max(1));
        let mut samples = 0;
        for shard in 0..opened as u32 {
            samples += self.shard(shard)?.samples() as u64;
        }
        let all = samples as f64 * shards as f64 / opened.max(1) as f64;
        Ok((all.round() as u64, opened == shards))
    }

    /// The next document of this epoch; `None` at its end, after which the next epoch begins.
    ///
    /// # Errors
    /// [`DataError`] if a shard has become unreadable.
    pub fn next_in_epoch(&mut self) -> Result<Option<D>, DataError> {
        // By now the last document was tokenized, so that all is known of it.
        self.write_indexes();
        loop {
            self.fill_buffer()?;
            if self.at.buffer.is_empty() {
                self.begin_next_epoch();
                return Ok(None);
            }
            let drawn = self.draw();
            let limits = self.config.limits;
            let (read, sample) = (self.read, drawn.1 as usize);
            let shard = self.shard(drawn.0)?;
            match read(shard, sample, &limits)? {
                Ok(document) => {
                    (self.used, self.last) = (self.used + 1, Some(drawn));
                    return Ok(Some(document));
                }
                Err(reason) => {
                    let name = shard.name(sample);
                    self.skip(reason, name);
                }
            }
        }
    }

    fn fill_buffer(&mut self) -> Result<(), DataError> {
        while self.at.buffer.len() < self.config.shuffle_buffer && self.at.shard < self.order.len()
        {
            let number = self.order[self.at.shard];
            let shard = self.shard(number)?;
            let (samples, broken) = (shard.samples() as u32, shard.is_broken());
            if self.at.sample < samples {
                self.at.buffer.push((number, self.at.sample));
                self.at.sample += 1;
            } else {
                if broken {
                    let name = self.shards[number as usize].display().to_string();
                    self.skip(SkipReason::BrokenShard, name);
                }
                (self.at.shard, self.at.sample) = (self.at.shard + 1, 0);
            }
        }
        Ok(())
    }

    fn skip(&mut self, reason: SkipReason, name: String) {
        self.at.skipped.add(reason);
        SkippedSample::note(&mut self.first_skipped, reason, || name);
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
        let shards = self.identities.clone();
        let skipped = std::mem::take(&mut self.at.skipped);
        self.at = ShardsPosition {
            shards,
            epoch,
            shard: 0,
            sample: 0,
            drawn: 0,
            buffer: Vec::new(),
            skipped,
        };
        self.order = self.shard_order(epoch);
        self.used = 0;
    }

    fn shard_order(&self, epoch: u64) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.at.shards.len() as u32).collect();
        if self.config.shuffle_buffer > 1 {
            order.shuffle(&mut rng(self.config.seed, epoch, 0));
        }
        order
    }

    /// The shards in the order of `saved`, then those that are new; `None` if one of `saved` is not there.
    fn in_order_of(&self, saved: &[u64]) -> Option<(Vec<PathBuf>, Arc<[u64]>)> {
        let mut rest: Vec<(u64, &PathBuf)> =
            self.identities.iter().copied().zip(&self.shards).collect();
        let mut found = Vec::with_capacity(rest.len());
        let places: HashMap<u64, usize> =
            rest.iter().enumerate().map(|(i, &(identity, _))| (identity, i)).collect();
        let mut taken = vec![false; rest.len()];
        for identity in saved {
            let place = *places.get(identity)?;
            taken[place] = true;
            found.push(rest[place]);
        }
        let mut taken = taken.into_iter();
        rest.retain(|_| !taken.next().unwrap_or(false));
        rest.sort_by(|a, b| a.1.cmp(b.1));
        found.extend(rest);
        let paths = found.iter().map(|&(_, path)| path.clone()).collect();
        Some((paths, found.iter().map(|&(identity, _)| identity).collect()))
    }

    fn shard(&mut self, number: u32) -> Result<&mut Shard, DataError> {
        if let Some(i) = self.open.iter().position(|(n, _)| *n == number) {
            let found = self.open.remove(i);
            self.open.push(found);
        } else {
            if self.open.len() == OPEN_SHARDS {
                self.close(1);
            }
            let (path, identity) =
                (&self.shards[number as usize], self.identities[number as usize]);
            let mut shard = Shard::open(path, identity, &self.config.folders)?;
            if let Some(known) = self.partly_known.remove(&identity) {
                shard.remember(known);
            }
            self.open.push((number, shard));
        }
        Ok(&mut self.open.last_mut().expect("one was just put there").1)
    }
}

impl<D> WebDataset<D> {
    /// Closes the first `count` open shards.
    fn close(&mut self, count: usize) {
        for (number, shard) in self.open.drain(..count) {
            if self.keeps_indexes && shard.known().is_new() {
                self.partly_known.insert(self.identities[number as usize], shard.into_known());
            }
        }
    }

    /// Writes the indexes of open shards whose samples were all read. A run goes on without those that cannot be written.
    fn write_indexes(&mut self) {
        if !self.keeps_indexes {
            return;
        }
        let folder = self.config.folders.indexes.as_deref();
        for (_, shard) in &mut self.open {
            if shard.needs_index() {
                self.keeps_indexes &= shard.write_index(folder).is_ok();
            }
        }
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
        let Some(shards) = self.in_order_of(&at.shards) else {
            return differs("a shard that it was saved with is missing or has other content");
        };
        let known = |&(shard, _): &Place| (shard as usize) < at.shards.len();
        if at.shard > at.shards.len() || !at.buffer.iter().all(known) {
            return differs("it names shards that are not there");
        }
        if at.buffer.len() > self.config.shuffle_buffer {
            return differs("its shuffle buffer is larger");
        }
        self.close(self.open.len());
        (self.shards, self.identities) = shards;
        (self.at, self.used) = (at, 0);
        self.order = self.shard_order(self.at.epoch);
        Ok(())
    }

    fn passes(&self) -> u64 {
        self.at.epoch
    }

    fn last_name(&self) -> Option<String> {
        let (shard, sample) = self.last?;
        let open = self.open.iter().find(|(number, _)| *number == shard);
        open.map(|(_, shard)| shard.name(sample as usize))
    }

    fn skipped(&self) -> SkipCounts {
        self.at.skipped.clone()
    }

    fn first_skipped(&self) -> Vec<SkippedSample> {
        self.first_skipped.clone()
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
mod formats_tests;
#[cfg(test)]
mod index_tests;
#[cfg(all(test, feature = "remote"))]
mod remote_tests;
#[cfg(test)]
mod tests;
