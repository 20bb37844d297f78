//! Unpacks compressed tars into temporary files, since samples are drawn in any order.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Write};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

use super::format::Format;

/// Most bytes of an unpacked shard.
const MAX_UNPACKED_BYTES: u64 = 256 << 30;

/// An unpacked shard; it is deleted when it is closed.
pub(super) struct Unpacked {
    pub file: File,
    /// True if the packed file ended too early or was damaged behind its beginning.
    pub broken: bool,
}

/// Unpacks a shard of `format`.
///
/// # Errors
/// The error of the disk; damage behind the beginning only sets [`Unpacked::broken`].
pub(super) fn unpack(packed: File, format: Format) -> std::io::Result<Unpacked> {
    let packed = BufReader::with_capacity(1 << 20, packed);
    let mut file = tempfile::tempfile()?;
    let broken = match format {
        Format::Zstd => copy_frames(packed, &mut file)?,
        _ => copy(&mut MultiGzDecoder::new(packed), &mut file)?,
    };
    Ok(Unpacked { file, broken })
}

/// Copies all frames of a Zstandard file, and returns true if it is damaged.
fn copy_frames(mut packed: BufReader<File>, out: &mut File) -> std::io::Result<bool> {
    use std::io::BufRead;
    while !packed.fill_buf()?.is_empty() {
        let Ok(mut frame) = StreamingDecoder::new(&mut packed) else { return Ok(true) };
        if copy(&mut frame, out)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Copies what a decoder gives, and returns true if the packed data is damaged.
fn copy(packed: &mut dyn Read, out: &mut File) -> std::io::Result<bool> {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let read = match packed.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return Ok(true),
        };
        total += read as u64;
        if total > MAX_UNPACKED_BYTES {
            return Ok(true);
        }
        out.write_all(&buffer[..read])?;
    }
}
