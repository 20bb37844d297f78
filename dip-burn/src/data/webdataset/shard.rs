//! One shard: an index of its samples, and the file that holds them.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dip_files::Kind;

use super::cache::ShardCache;
use super::format::{Format, is_remote};
use super::headers::HeaderError;
use super::index::Index;
use super::index_file::{ShardVersion, beside};
use super::known::KnownMedia;
use super::pictures::PictureFolder;
use super::remote;
use super::sample::{SampleReader, SizeLimits, Unusable};
use super::unpack::{Unpacked, unpack};
use crate::data::document::Document;
use crate::data::encoded::StoredFile;
use crate::data::error::DataError;
use crate::data::skip::SkipReason;
use crate::data::video::CaptionedVideo;

/// Folders beside the shards.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Folders {
    /// The pictures that JSON files name; absent for the folder of each file.
    pub images: Option<PathBuf>,
    /// Where shards on other machines are kept; absent to keep them only while they are open.
    pub cache: Option<ShardCache>,
    /// Where indexes of shards are kept that have none beside them; absent to keep none.
    pub indexes: Option<PathBuf>,
}

/// An open shard, with the places of its samples.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    file: Arc<Mutex<File>>,
    /// The same file, for media that are read later.
    stored: StoredFile,
    index: Index,
    /// Where the samples of a JSON file find their pictures.
    pictures: Option<PictureFolder>,
    version: ShardVersion,
    known: KnownMedia,
}

impl Shard {
    /// Opens a shard and finds its samples. With an index, what is known of their media is read, too.
    ///
    /// # Errors
    /// [`DataError::Io`] and [`DataError::NotAShard`] name the file. Damage after the beginning is only noted.
    pub fn open(path: &Path, identity: u64, folders: &Folders) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let mut file = match is_remote(path) {
            true => remote::fetch(path, folders.cache.as_ref())?,
            false => dip_files::open(path, Kind::SHARD).map_err(io)?,
        };
        let format = Format::of(path, &mut file)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let packed = file.try_clone().map_err(io)?;
        let mut pictures = None;
        let index = match format {
            Format::Tar => tar_index(path, &mut file)?,
            Format::Gzip | Format::Zstd => {
                let Unpacked { file: unpacked, broken } = unpack(file, format).map_err(io)?;
                file = unpacked;
                let mut index = tar_index(path, &mut file)?;
                index.broken |= broken;
                index
            }
            Format::Json => {
                let own = path.parent().unwrap_or(Path::new("."));
                pictures = Some(PictureFolder::new(folders.images.as_deref().unwrap_or(own)));
                Index::of_json(&mut file).map_err(io)?
            }
            Format::Parquet => {
                let (unpacked, index) = parquet_index(path, file)?;
                file = unpacked;
                index
            }
        };
        let version = ShardVersion::of(path, identity, &packed, &index).map_err(io)?;
        let known = known(&version, path, &index, folders);
        let file = Arc::new(Mutex::new(file));
        let stored = match format {
            Format::Tar if !is_remote(path) => StoredFile::Named(path.into()),
            _ => StoredFile::Open(file.clone(), path.into()),
        };
        Ok(Self { path: path.to_owned(), file, stored, index, pictures, version, known })
    }

    /// True if its index is in a folder, or beside it without one.
    pub fn has_index(&self, folder: Option<&Path>) -> bool {
        self.version.read(&self.index_path(folder), &self.index).is_some()
    }

    /// The path of its index in a folder, or beside it without one.
    pub fn index_path(&self, folder: Option<&Path>) -> PathBuf {
        folder.map_or_else(|| beside(&self.path), |folder| self.version.path_in(folder))
    }

    /// Forgets all that is known of its media.
    pub fn forget(&mut self) {
        self.known = KnownMedia::nothing(self.index.samples.len());
    }

    /// What is known of the media of the shard.
    pub fn known(&self) -> &KnownMedia {
        &self.known
    }

    /// True if its index is to be written: see [`KnownMedia::is_to_be_written`].
    pub fn needs_index(&mut self) -> bool {
        self.known.is_to_be_written()
    }

    /// Goes on from what was known when the shard was last open, unless its index has it.
    pub fn remember(&mut self, known: KnownMedia) {
        if self.known.is_new() && known.samples.len() == self.index.samples.len() {
            self.known = known;
        }
    }

    /// Closes the shard, and returns what has become known of its media.
    pub fn into_known(self) -> KnownMedia {
        self.known
    }

    /// Writes the index of the shard into a folder, or beside the shard without one. Returns its path.
    ///
    /// # Errors
    /// [`DataError::Io`] names the index.
    pub fn write_index(&mut self, folder: Option<&Path>) -> Result<PathBuf, DataError> {
        let path = self.index_path(folder);
        let written = self.version.write(&path, &self.known, &self.index);
        written.map_err(|source| DataError::Io { path: path.clone(), source })?;
        self.known.written();
        Ok(path)
    }

    /// The number of samples, usable or not.
    pub fn samples(&self) -> usize {
        self.index.samples.len()
    }

    /// True if a part in the middle is broken; later samples are lost.
    pub fn is_broken(&self) -> bool {
        self.index.broken
    }

    /// The name of a sample in reports.
    pub fn name(&self, sample: usize) -> String {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        match self.index.samples.get(sample) {
            Some(found) if !found.stem.is_empty() => format!("{file}: {}", found.stem),
            Some(_) => format!("{file}: sample {sample}"),
            None => file.into_owned(),
        }
    }

    /// Reads a sample. Its pictures stay encoded; only their headers are checked. The inner error says why to skip it.
    ///
    /// # Errors
    /// [`DataError::Io`] names the shard.
    pub fn read(
        &mut self,
        sample: usize,
        limits: &SizeLimits,
    ) -> Result<Result<Document, SkipReason>, DataError> {
        self.with(sample, limits, |reader| reader.document())
    }

    /// Reads a sample as a captioned video, without decoding it. The inner error says why to skip it.
    ///
    /// # Errors
    /// [`DataError::Io`] names the shard.
    pub fn read_video(
        &mut self,
        sample: usize,
        limits: &SizeLimits,
    ) -> Result<Result<CaptionedVideo, SkipReason>, DataError> {
        self.with(sample, limits, |reader| reader.video())
    }

    fn with<D>(
        &mut self,
        sample: usize,
        limits: &SizeLimits,
        read: impl FnOnce(&mut SampleReader<'_>) -> Result<D, Unusable>,
    ) -> Result<Result<D, SkipReason>, DataError> {
        let Self { path, file, stored, index, pictures, known, .. } = self;
        let Some(places) = index.samples.get(sample) else { return Ok(Err(SkipReason::Empty)) };
        let folder = pictures.as_ref();
        let result = known.read(sample, |known| {
            read(&mut SampleReader { path, file, stored, sample: places, limits, folder, known })
        });
        match result {
            Ok(document) => Ok(Ok(document)),
            Err(Unusable::Skip(reason)) => Ok(Err(reason)),
            Err(Unusable::Data(error)) => Err(error),
        }
    }
}

/// What an index of the shard knows, in the folder of indexes or beside it; nothing without one.
fn known(version: &ShardVersion, path: &Path, index: &Index, folders: &Folders) -> KnownMedia {
    let kept = folders.indexes.as_deref().map(|folder| version.path_in(folder));
    let beside = (!is_remote(path)).then(|| beside(path));
    let mut files = kept.into_iter().chain(beside);
    let found = files.find_map(|file| version.read(&file, index));
    found.unwrap_or_else(|| KnownMedia::nothing(index.samples.len()))
}

fn tar_index(path: &Path, file: &mut File) -> Result<Index, DataError> {
    Index::of_tar(file).map_err(|error| match error {
        HeaderError::Io(source) => DataError::Io { path: path.to_owned(), source },
        HeaderError::Broken(what) => {
            DataError::NotAShard { path: path.to_owned(), what: what.into() }
        }
    })
}

#[cfg(feature = "parquet")]
fn parquet_index(path: &Path, file: File) -> Result<(File, Index), DataError> {
    super::parquet::unpack(path, file)
}

#[cfg(not(feature = "parquet"))]
fn parquet_index(path: &Path, _file: File) -> Result<(File, Index), DataError> {
    let what = "it is a Parquet file, and this program was built without the feature `parquet`";
    Err(DataError::NotAShard { path: path.to_owned(), what: what.into() })
}
