//! `checksums.xxh3`: a line with the checksum and the name of every other file, as `xxhsum -H3` writes it and checks it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use dip_files::Kind;
use twox_hash::XxHash3_64;

use super::{CHECKSUMS, CheckpointError};

/// Checksums by file name.
pub(super) type Checksums = BTreeMap<String, String>;

/// Bytes that are read at a time.
const BLOCK_BYTES: usize = 1 << 20;
const PREFIX: &str = "XXH3 (";
const MIDDLE: &str = ") = ";

/// The text of a finished hash.
pub(super) fn text_of(hash: &XxHash3_64) -> String {
    use std::hash::Hasher;
    format!("{:016x}", hash.finish())
}

/// The checksum of a file, which is read in blocks.
pub(super) fn of_file(path: &Path) -> Result<String, CheckpointError> {
    use std::hash::Hasher;
    let io = CheckpointError::io(path);
    let mut file = dip_files::open(path, Kind::WEIGHTS).map_err(&io)?;
    let (mut hash, mut block) = (XxHash3_64::new(), vec![0; BLOCK_BYTES]);
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(text_of(&hash)),
            Ok(read) => hash.write(&block[..read]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(io(e)),
        }
    }
}

/// Writes the checksums of the files in `folder`.
pub(super) fn write(folder: &Path, checksums: &Checksums) -> Result<(), CheckpointError> {
    let path = folder.join(CHECKSUMS);
    let lines = checksums.iter().map(|(name, sum)| format!("{PREFIX}{name}{MIDDLE}{sum}\n"));
    let text: String = lines.collect();
    dip_files::write_synced(&path, text.as_bytes()).map_err(CheckpointError::io(&path))
}

/// Reads the checksums of the files in `folder`.
pub(super) fn read(folder: &Path) -> Result<Checksums, CheckpointError> {
    let path = folder.join(CHECKSUMS);
    let text = dip_files::read_text(&path, Kind::CHECKPOINT_INDEX);
    let text = text.map_err(CheckpointError::io(&path))?;
    let sum = |line: &str| {
        let (name, sum) = line.strip_prefix(PREFIX)?.rsplit_once(MIDDLE)?;
        Some((name.to_owned(), sum.to_owned()))
    };
    let wrong = |line: &str| CheckpointError::damaged(&path, format!("{line:?} is no checksum"));
    text.lines().map(|line| sum(line).ok_or_else(|| wrong(line))).collect()
}

/// Computes the checksums of a checkpoint anew, after a change by hand.
///
/// # Errors
/// [`CheckpointError`] if a file cannot be read or written.
pub fn renew(checkpoint: &Path) -> Result<(), CheckpointError> {
    let mut checksums = Checksums::new();
    for entry in fs::read_dir(checkpoint).map_err(CheckpointError::io(checkpoint))? {
        let path = entry.map_err(CheckpointError::io(checkpoint))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name != CHECKSUMS {
            checksums.insert(name, of_file(&path)?);
        }
    }
    write(checkpoint, &checksums)
}
