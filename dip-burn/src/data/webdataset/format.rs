//! The formats of shards, told by the first bytes of a file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::headers::{HeaderError, Headers};
use crate::data::error::DataError;

/// Bytes at the beginning and at the end of a shard that identify its content.
pub(super) const IDENTITY_BYTES: u64 = 64 << 10;

/// The format of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Tar,
    /// A tar compressed with gzip.
    Gzip,
    /// A tar compressed with Zstandard.
    Zstd,
    /// JSON Lines, or one JSON array.
    Json,
    Parquet,
}

/// The ends of the names of shards in a folder.
const SUFFIXES: [&str; 7] =
    [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".jsonl", ".parquet"];

impl Format {
    /// True for the names of files that are shards if their folder is given. A `.json` must be named itself: many folders have
    /// one that describes them.
    pub fn is_shard_name(name: &str) -> bool {
        SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) && !name.starts_with('.')
    }

    /// Tells the format of an open file.
    ///
    /// # Errors
    /// [`DataError`] names a file that cannot be read, or is no shard.
    pub fn of(path: &Path, file: &mut File) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let mut start = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        file.take(1024).read_to_end(&mut start).map_err(io)?;
        let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start);
        match text.trim_ascii_start() {
            _ if start.starts_with(&[0x1f, 0x8b]) => Ok(Self::Gzip),
            _ if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) => Ok(Self::Zstd),
            _ if start.starts_with(b"PAR1") => Ok(Self::Parquet),
            [b'{' | b'[', ..] => Ok(Self::Json),
            _ => {
                let length = file.metadata().map_err(io)?.len();
                match Headers::new(file, length).block() {
                    Ok(_) => Ok(Self::Tar),
                    Err(HeaderError::Io(source)) => Err(io(source)),
                    Err(HeaderError::Broken(what)) => {
                        Err(DataError::NotAShard { path: path.to_owned(), what: what.into() })
                    }
                }
            }
        }
    }
}

/// True for a URL.
pub(super) fn is_remote(path: &Path) -> bool {
    path.to_str().is_some_and(|url| url.contains("://"))
}
