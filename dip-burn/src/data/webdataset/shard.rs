//! One tar shard: an index of its samples, read from the headers only.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::headers::{Entry, HeaderError, Headers};
use super::sample::{Member, SampleReader, ShardSample, SizeLimits, Unusable};
use crate::data::document::Document;
use crate::data::error::DataError;
use crate::data::skip::SkipReason;
use crate::data::video::CaptionedVideo;

/// Most members of one shard.
const MAX_MEMBERS: usize = 1 << 22;

/// An open shard, with the places of its samples.
#[derive(Debug)]
pub(super) struct TarShard {
    path: PathBuf,
    file: File,
    samples: Vec<ShardSample>,
    /// True if a header in the middle is broken; later members are not indexed.
    pub broken: bool,
}

impl TarShard {
    /// Opens a shard and indexes it.
    ///
    /// # Errors
    /// [`DataError::Io`] and [`DataError::NotATar`] name the file. A broken header after the first only sets
    /// [`TarShard::broken`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut samples: Vec<ShardSample> = Vec::new();
        let mut headers = Headers::new(&mut file, length);
        let mut members = 0;
        let mut broken = false;
        loop {
            match headers.next() {
                Ok(None) => break,
                Ok(Some(Entry { name, offset, bytes })) => {
                    members += 1;
                    if members > MAX_MEMBERS {
                        broken = true;
                        break;
                    }
                    let Some((stem, extension)) = split_name(&name) else { continue };
                    let member = Member { extension, offset, bytes };
                    match samples.last_mut() {
                        Some(last) if last.stem == stem => last.members.push(member),
                        _ => samples.push(ShardSample { stem, members: vec![member] }),
                    }
                }
                Err(HeaderError::Io(source)) => return Err(io(source)),
                Err(HeaderError::Broken(what)) if headers.at_start() => {
                    return Err(DataError::NotATar { path: path.to_owned(), what: what.into() });
                }
                Err(HeaderError::Broken(_)) => {
                    broken = true;
                    break;
                }
            }
        }
        Ok(Self { path: path.to_owned(), file, samples, broken })
    }

    /// Checks that the file begins like a tar, and returns its length in bytes.
    ///
    /// # Errors
    /// [`DataError`] names the file.
    pub fn probe(path: &Path) -> Result<u64, DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        match Headers::new(&mut file, length).block() {
            Ok(_) => Ok(length),
            Err(HeaderError::Io(source)) => Err(io(source)),
            Err(HeaderError::Broken(what)) => {
                Err(DataError::NotATar { path: path.to_owned(), what: what.into() })
            }
        }
    }

    /// The number of samples, usable or not.
    pub fn samples(&self) -> usize {
        self.samples.len()
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
        let Self { path, file, samples, .. } = self;
        let Some(sample) = samples.get(sample) else { return Ok(Err(SkipReason::Empty)) };
        match read(&mut SampleReader { path, file, sample, limits }) {
            Ok(document) => Ok(Ok(document)),
            Err(Unusable::Skip(reason)) => Ok(Err(reason)),
            Err(Unusable::Data(error)) => Err(error),
        }
    }
}

/// Stem and extension of a member; `None` for hidden files and names without a dot.
fn split_name(name: &str) -> Option<(String, String)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    (dot > base).then(|| (name[..dot].to_owned(), name[dot + 1..].to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_split_at_the_first_dot_of_its_base() {
        let split = |name| split_name(name).unwrap();
        assert_eq!(split("a.b/c.0.PNG"), ("a.b/c".into(), "0.png".into()));
        assert_eq!(split_name("a.b/c"), None);
        assert_eq!(split_name("a/.hidden"), None);
    }
}
