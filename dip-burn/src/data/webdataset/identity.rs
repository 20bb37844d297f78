//! Numbers that tell shards apart.

use std::hash::Hasher;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use dip_files::Kind;
use fnv::FnvHasher;

use super::format::{Format, IDENTITY_BYTES, is_remote};
use super::remote;
use crate::data::error::DataError;

/// A number that tells shards apart: by their name, length, first and last bytes.
///
/// # Errors
/// [`DataError`] names a file that cannot be read, or is no shard.
pub(super) fn identity(path: &Path) -> Result<u64, DataError> {
    if is_remote(path) {
        return remote::identity(path);
    }
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let mut file = dip_files::open(path, Kind::SHARD).map_err(io)?;
    Format::of(path, &mut file)?;
    let length = file.metadata().map_err(io)?.len();
    let mut hash = FnvHasher::default();
    hash.write(path.file_name().unwrap_or_default().as_encoded_bytes());
    hash.write(&length.to_le_bytes());
    let mut bytes = Vec::new();
    for start in [0, length.saturating_sub(IDENTITY_BYTES)] {
        bytes.clear();
        file.seek(SeekFrom::Start(start)).map_err(io)?;
        (&file).take(IDENTITY_BYTES).read_to_end(&mut bytes).map_err(io)?;
        hash.write(&bytes);
    }
    Ok(hash.finish())
}
