//! Walks over the headers of a tar.
//!
//! The `tar` crate's own walk reads extended headers of any size into memory; this walk limits their size.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use tar::{EntryType, Header, PaxExtensions};

const BLOCK_BYTES: u64 = 512;
/// Longest name and longest extended header of a member, in bytes.
const MAX_NAME_BYTES: u64 = 64 << 10;

/// A walk over the headers of an open tar.
pub(super) struct Headers<'a> {
    file: &'a mut File,
    length: u64,
    at: u64,
}

/// A regular file of a tar.
pub(super) struct Entry {
    /// Its path in the tar.
    pub name: String,
    /// Offset of its content in the tar, in bytes.
    pub offset: u64,
    /// Bytes of its content.
    pub bytes: u64,
}

/// Why a walk cannot continue.
pub(super) enum HeaderError {
    /// The file cannot be read.
    Io(std::io::Error),
    /// A header is broken.
    Broken(&'static str),
}

impl<'a> Headers<'a> {
    /// A walk from the first header of a file of `length` bytes.
    pub fn new(file: &'a mut File, length: u64) -> Self {
        Self { file, length, at: 0 }
    }

    /// True if no member has been read yet.
    pub fn at_start(&self) -> bool {
        self.at == 0
    }

    /// The next regular file; `None` at the end of the archive.
    pub fn next(&mut self) -> Result<Option<Entry>, HeaderError> {
        let mut long_name: Option<String> = None;
        let mut long_size: Option<u64> = None;
        loop {
            let Some(header) = self.block()? else { return Ok(None) };
            let kind = header.entry_type();
            let extends = kind.is_gnu_longname() || kind.is_pax_local_extensions();
            let size =
                header.entry_size().map_err(|_| HeaderError::Broken("a member has no size"))?;
            let size = if extends { size } else { long_size.take().unwrap_or(size) };
            let offset = self.at + BLOCK_BYTES;
            let end = offset.checked_add(size).filter(|&end| end <= self.length);
            let end = end.ok_or(HeaderError::Broken("it ends inside a member"))?;
            if extends {
                let data = self.extension(offset, size)?;
                if kind.is_gnu_longname() {
                    long_name = Some(text(&data));
                } else {
                    for field in PaxExtensions::new(&data).flatten() {
                        match field.key_bytes() {
                            b"path" => long_name = Some(text(field.value_bytes())),
                            b"size" => long_size = text(field.value_bytes()).parse().ok(),
                            _ => {}
                        }
                    }
                }
            }
            self.at = end.next_multiple_of(BLOCK_BYTES);
            if matches!(kind, EntryType::Regular | EntryType::Continuous) {
                let name = long_name.take().unwrap_or_else(|| text(&header.path_bytes()));
                return Ok(Some(Entry { name, offset, bytes: size }));
            }
            if !extends {
                long_name = None;
            }
        }
    }

    fn extension(&mut self, offset: u64, size: u64) -> Result<Vec<u8>, HeaderError> {
        if size > MAX_NAME_BYTES {
            return Err(HeaderError::Broken("an extended header is too large"));
        }
        let mut data = vec![0; size as usize];
        self.file.seek(SeekFrom::Start(offset)).map_err(HeaderError::Io)?;
        self.file.read_exact(&mut data).map_err(HeaderError::Io)?;
        Ok(data)
    }

    /// The header at the current place, with its checksum verified; `None` at the end of the archive.
    pub fn block(&mut self) -> Result<Option<Header>, HeaderError> {
        if self.at + BLOCK_BYTES > self.length {
            // Many archives lack their closing zero blocks; a file shorter than one block is not an archive.
            return if self.at == 0 {
                Err(HeaderError::Broken("it is too short"))
            } else {
                Ok(None)
            };
        }
        let mut header = Header::new_old();
        self.file.seek(SeekFrom::Start(self.at)).map_err(HeaderError::Io)?;
        self.file.read_exact(header.as_mut_bytes()).map_err(HeaderError::Io)?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let sum = |range: &[u8]| range.iter().map(|&b| u32::from(b)).sum::<u32>();
        let expected = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
        match header.cksum() {
            Ok(stored) if stored == expected => Ok(Some(header)),
            _ if self.at == 0 && bytes.starts_with(&[0x1f, 0x8b]) => {
                Err(HeaderError::Broken("it is compressed with gzip"))
            }
            _ => Err(HeaderError::Broken("its header has a wrong checksum")),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
