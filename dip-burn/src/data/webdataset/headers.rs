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

/// A file of a tar.
pub(super) struct Entry {
    /// Its path in the tar.
    pub name: String,
    pub content: Content,
}

/// Where the content of a file is.
pub(super) enum Content {
    /// In the tar, from byte `offset` on.
    Here { offset: u64, bytes: u64 },
    /// In the file of this path in the tar.
    Link(String),
    /// Nowhere in one piece: the file is sparse.
    Sparse,
}

/// What extended headers say about the member that follows them.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    sparse: bool,
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

    /// The next file; `None` at the end of the archive.
    pub fn next(&mut self) -> Result<Option<Entry>, HeaderError> {
        let mut extended = Extended::default();
        loop {
            let Some(header) = self.block()? else { return Ok(None) };
            let kind = header.entry_type();
            let extends =
                kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions();
            let size =
                header.entry_size().map_err(|_| HeaderError::Broken("a member has no size"))?;
            let size = if extends { size } else { extended.size.take().unwrap_or(size) };
            let offset = self.at + BLOCK_BYTES;
            let end = offset.checked_add(size).filter(|&end| end <= self.length);
            let end = end.ok_or(HeaderError::Broken("it ends inside a member"))?;
            if extends {
                let data = self.extension(offset, size)?;
                extended.read(kind, &data);
            }
            // The places of a sparse file may go on in more blocks, which its size leaves out.
            let places =
                if kind.is_gnu_sparse() { self.sparse_blocks(&header, offset)? } else { 0 };
            self.at = end.next_multiple_of(BLOCK_BYTES) + places * BLOCK_BYTES;
            if extends {
                continue;
            }
            let Extended { name, link, sparse, .. } = std::mem::take(&mut extended);
            let content = match kind {
                EntryType::GNUSparse => Content::Sparse,
                EntryType::Regular | EntryType::Continuous if sparse => Content::Sparse,
                EntryType::Regular | EntryType::Continuous => Content::Here { offset, bytes: size },
                EntryType::Link | EntryType::Symlink => {
                    let target = || header.link_name_bytes().map(|bytes| text(&bytes));
                    Content::Link(link.or_else(target).unwrap_or_default())
                }
                _ => continue,
            };
            let name = name.unwrap_or_else(|| text(&header.path_bytes()));
            return Ok(Some(Entry { name, content }));
        }
    }

    /// The number of blocks with places after the header of a sparse file.
    fn sparse_blocks(&mut self, header: &Header, offset: u64) -> Result<u64, HeaderError> {
        let mut more = header.as_gnu().is_some_and(|gnu| gnu.isextended[0] == 1);
        let mut blocks = 0;
        while more {
            let at = offset + blocks * BLOCK_BYTES;
            if at + BLOCK_BYTES > self.length {
                return Err(HeaderError::Broken("it ends inside a member"));
            }
            let mut block = [0; BLOCK_BYTES as usize];
            self.file.seek(SeekFrom::Start(at)).map_err(HeaderError::Io)?;
            self.file.read_exact(&mut block).map_err(HeaderError::Io)?;
            more = block[504] == 1;
            blocks += 1;
        }
        Ok(blocks)
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
            _ => Err(HeaderError::Broken("its header has a wrong checksum")),
        }
    }
}

impl Extended {
    fn read(&mut self, kind: EntryType, data: &[u8]) {
        if kind.is_gnu_longname() {
            self.name = Some(text(data));
            return;
        }
        if kind.is_gnu_longlink() {
            self.link = Some(text(data));
            return;
        }
        for field in PaxExtensions::new(data).flatten() {
            let value = || text(field.value_bytes());
            match field.key_bytes() {
                // The path of a sparse file is that of its places.
                b"path" if !self.sparse => self.name = Some(value()),
                b"linkpath" => self.link = Some(value()),
                b"size" => self.size = value().parse().ok(),
                b"GNU.sparse.name" => (self.name, self.sparse) = (Some(value()), true),
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
