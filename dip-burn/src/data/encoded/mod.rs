//! Files of pictures, sounds and videos before they are decoded: their bytes are in memory, or stay where they are stored.

mod facts;

pub use facts::FrameInfo;
pub(super) use facts::{MediaFacts, SoundFacts, VideoFacts};

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use dip_files::Kind;

use super::error::DataError;

/// The bytes of a picture, sound or video; cheap to clone.
#[derive(Debug, Clone)]
pub struct Encoded {
    place: Place,
    /// What is known of it without its bytes.
    facts: Arc<MediaFacts>,
}

#[derive(Debug, Clone)]
enum Place {
    Memory(Arc<[u8]>),
    Stored(StoredBytes),
}

/// Bytes of a file, which are read when they are needed.
#[derive(Debug, Clone)]
pub(super) struct StoredBytes {
    pub file: StoredFile,
    pub offset: u64,
    pub bytes: u64,
}

/// A file that holds media.
#[derive(Debug, Clone)]
pub(super) enum StoredFile {
    /// A file that is opened for each read, so that any number of media may wait.
    Named(Arc<Path>),
    /// An open file, such as an unpacked shard, and the name of the shard.
    Open(Arc<Mutex<File>>, Arc<Path>),
}

impl Encoded {
    /// Media in memory, of which something may be known or become known.
    pub(super) fn in_memory(bytes: Vec<u8>, facts: Arc<MediaFacts>) -> Self {
        Self { place: Place::Memory(bytes.into()), facts }
    }

    /// Media of which enough is known to leave them where they are stored.
    pub(super) fn stored(bytes: StoredBytes, facts: Arc<MediaFacts>) -> Self {
        Self { place: Place::Stored(bytes), facts }
    }

    /// True if reading the bytes needs no file.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.place, Place::Memory(_))
    }

    /// Its bytes.
    ///
    /// # Errors
    /// [`DataError::Io`] names the file that holds them.
    pub fn bytes(&self) -> Result<Arc<[u8]>, DataError> {
        match &self.place {
            Place::Memory(bytes) => Ok(bytes.clone()),
            Place::Stored(stored) => stored.read().map(Into::into),
        }
    }

    /// The same with its bytes in memory.
    ///
    /// # Errors
    /// As [`Encoded::bytes`].
    pub fn loaded(&self) -> Result<Self, DataError> {
        Ok(Self { place: Place::Memory(self.bytes()?), facts: self.facts.clone() })
    }

    /// What is known of it.
    pub(super) fn facts(&self) -> &MediaFacts {
        &self.facts
    }
}

impl StoredBytes {
    fn read(&self) -> Result<Vec<u8>, DataError> {
        let path = match &self.file {
            StoredFile::Named(path) | StoredFile::Open(_, path) => path,
        };
        let read = match &self.file {
            StoredFile::Named(path) => {
                dip_files::open(path, Kind::SHARD).and_then(|mut file| self.read_from(&mut file))
            }
            StoredFile::Open(file, _) => {
                self.read_from(&mut file.lock().unwrap_or_else(PoisonError::into_inner))
            }
        };
        read.map_err(|source| DataError::Io { path: path.to_path_buf(), source })
    }

    fn read_from(&self, file: &mut File) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.bytes as usize];
        file.seek(SeekFrom::Start(self.offset))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl<T: Into<Arc<[u8]>>> From<T> for Encoded {
    fn from(bytes: T) -> Self {
        Self { place: Place::Memory(bytes.into()), facts: Arc::default() }
    }
}

impl PartialEq for Encoded {
    /// Equal if their bytes can be read and are equal.
    fn eq(&self, other: &Self) -> bool {
        matches!((self.bytes(), other.bytes()), (Ok(a), Ok(b)) if a == b)
    }
}
