//! One shard: an index of its samples, and the file that holds them.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use dip_files::Kind;

use super::cache::ShardCache;
use super::format::{Format, is_remote};
use super::headers::HeaderError;
use super::index::Index;
use super::pictures::PictureFolder;
use super::remote;
use super::sample::{SampleReader, SizeLimits, Unusable};
use super::unpack::{Unpacked, unpack};
use crate::data::document::Document;
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
}

/// An open shard, with the places of its samples.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    file: File,
    index: Index,
    /// Where the samples of a JSON file find their pictures.
    pictures: Option<PictureFolder>,
}

impl Shard {
    /// Opens a shard and indexes it.
    ///
    /// # Errors
    /// [`DataError::Io`] and [`DataError::NotAShard`] name the file. Damage after the beginning is only noted.
    pub fn open(path: &Path, folders: &Folders) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let mut file = match is_remote(path) {
            true => remote::fetch(path, folders.cache.as_ref())?,
            false => dip_files::open(path, Kind::SHARD).map_err(io)?,
        };
        let format = Format::of(path, &mut file)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut new = Self { path: path.to_owned(), file, index: Index::default(), pictures: None };
        match format {
            Format::Tar => new.index = tar_index(path, &mut new.file)?,
            Format::Gzip | Format::Zstd => {
                let Unpacked { file, broken } = unpack(new.file, format).map_err(io)?;
                new.file = file;
                new.index = tar_index(path, &mut new.file)?;
                new.index.broken |= broken;
            }
            Format::Json => {
                new.index = Index::of_json(&mut new.file).map_err(io)?;
                let own = path.parent().unwrap_or(Path::new("."));
                new.pictures = Some(PictureFolder::new(folders.images.as_deref().unwrap_or(own)));
            }
            Format::Parquet => (new.file, new.index) = parquet_index(path, new.file)?,
        }
        Ok(new)
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
        let Self { path, file, index, pictures } = self;
        let Some(sample) = index.samples.get(sample) else { return Ok(Err(SkipReason::Empty)) };
        let folder = pictures.as_ref();
        match read(&mut SampleReader { path, file, sample, limits, folder }) {
            Ok(document) => Ok(Ok(document)),
            Err(Unusable::Skip(reason)) => Ok(Err(reason)),
            Err(Unusable::Data(error)) => Err(error),
        }
    }
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
