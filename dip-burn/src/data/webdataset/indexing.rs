//! Makes the indexes of shards in advance, instead of while they are first trained on.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::find::find_shards;
use super::format::is_remote;
use super::identity::identity;
use super::known::MediaCounts;
use super::sample::SizeLimits;
use super::shard::{Folders, Shard};
use crate::data::document::Document;
use crate::data::error::DataError;
use crate::data::skip::{SkipCounts, SkipReason};
use crate::data::sound::SAMPLE_RATE;

/// Samples of a sound after which its length no longer matters: ten minutes.
const MOST_SOUND_SAMPLES: usize = 600 * SAMPLE_RATE as usize;

/// Which shards are indexed, and where their indexes go.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct IndexRequest {
    /// Shards: files, folders of them, patterns or URLs.
    pub shards: Vec<PathBuf>,
    /// Where their pictures and indexes are. Without a folder of indexes, each comes beside its shard.
    pub folders: Folders,
    /// True if samples are captioned videos, as text-to-video models read them.
    pub holds_clips: bool,
    /// True if shards with a valid index are indexed again.
    pub rebuilds: bool,
}

/// A shard and its index.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexedShard {
    /// The shard.
    pub shard: PathBuf,
    /// Its index.
    pub index: PathBuf,
    /// True if the index was made now; false if it was there.
    pub is_new: bool,
    /// Samples, usable or not.
    pub samples: u64,
    /// Pictures, videos and sounds of known size.
    pub media: MediaCounts,
    /// Samples that cannot be used, by reason; empty if the index was there.
    pub skipped: SkipCounts,
}

impl IndexRequest {
    /// Makes the indexes, shard by shard on all cores. `see` is called after every sample, from any thread.
    ///
    /// # Errors
    /// [`DataError`] names a shard that cannot be read, or an index that cannot be written.
    pub fn run(&self, see: &(dyn Fn() + Sync)) -> Result<Vec<IndexedShard>, DataError> {
        find_shards(&self.shards)?.par_iter().map(|shard| self.index(shard, see)).collect()
    }

    fn index(&self, path: &Path, see: &(dyn Fn() + Sync)) -> Result<IndexedShard, DataError> {
        let identity = identity(path)?;
        let place = self.folders.indexes.as_deref();
        if place.is_none() && is_remote(path) {
            let reason = "there is no folder beside it for its index; give a folder for indexes";
            return Err(DataError::Remote { url: path.to_owned(), source: reason.into() });
        }
        let mut shard = Shard::open(path, identity, &self.folders)?;
        let mut skipped = SkipCounts::default();
        let is_new = self.rebuilds || !shard.has_index(place);
        if is_new {
            shard.forget();
            for sample in 0..shard.samples() {
                if let Err(reason) = self.learn(&mut shard, sample)? {
                    skipped.add(reason);
                }
                see();
            }
        }
        let index = match is_new {
            true => shard.write_index(place)?,
            false => shard.index_path(place),
        };
        Ok(IndexedShard {
            shard: path.to_owned(),
            index,
            is_new,
            samples: shard.samples() as u64,
            media: shard.known().count(),
            skipped,
        })
    }

    /// Reads a sample, so that its media are known.
    fn learn(&self, shard: &mut Shard, sample: usize) -> Result<Result<(), SkipReason>, DataError> {
        let limits = SizeLimits::default();
        if self.holds_clips {
            let read = shard.read_video(sample, &limits)?;
            return Ok(read.map(|found| drop(found.video.frame_info(1))));
        }
        Ok(shard.read(sample, &limits)?.map(|document| learn(&document)))
    }
}

/// Counts the frames of the videos of a document, and the samples of its sounds. Those that cannot be decoded stay unknown.
fn learn(document: &Document) {
    for video in document.videos() {
        let _ = video.frame_info(1);
    }
    for sound in document.sounds() {
        let _ = sound.samples(MOST_SOUND_SAMPLES);
    }
}
