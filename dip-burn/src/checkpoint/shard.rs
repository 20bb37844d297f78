//! The file of one rank: its tensors as safetensors, written one after another.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::{CheckpointError, checksums};
use crate::params::LazyTensor;
use crate::weights::header::header;

/// A file that is written and flushed to the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardFile {
    /// Its name in the folder of the checkpoint.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its checksum.
    pub xxh3: String,
    /// Name and shape of its tensors.
    pub tensors: Vec<(String, Vec<usize>)>,
}

/// Writes the file `name` into the folder of a [`Draft`](super::Draft). Copies one tensor at a time to the host.
///
/// # Errors
/// [`CheckpointError::Io`] if the file cannot be written.
pub fn write_shard(
    folder: &Path,
    name: String,
    tensors: Vec<LazyTensor>,
) -> Result<ShardFile, CheckpointError> {
    let path = folder.join(&name);
    let io = CheckpointError::io(&path);
    let shapes: Vec<_> = tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    let mut file = Hashed::new(BufWriter::new(File::create(&path).map_err(&io)?));
    file.write_all(&header(Dtype::F32, &shapes)).map_err(&io)?;
    for tensor in tensors {
        file.write_all(tensor.read().as_bytes()).map_err(&io)?;
    }
    let Hashed { inner, hash, bytes } = file;
    let file = inner.into_inner().map_err(|e| io(e.into_error()))?;
    file.sync_all().map_err(&io)?;
    Ok(ShardFile { name, bytes, xxh3: checksums::text_of(&hash), tensors: shapes })
}

/// Counts and hashes what is written.
struct Hashed<W> {
    inner: W,
    hash: XxHash3_64,
    bytes: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: XxHash3_64::new(), bytes: 0 }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.write(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
