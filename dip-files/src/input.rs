//! Reads files that must be regular and not too large.

use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Error, ErrorKind, Read};
use std::path::Path;

use crate::Kind;

/// Opens a file of a kind. Folders, pipes and devices are refused before they are opened: opening a pipe that nobody writes to waits
/// for ever.
///
/// # Errors
/// The system's error, or one that says what the file is, or its size and the limit.
pub fn open(path: &Path, kind: Kind) -> io::Result<File> {
    check(&fs::metadata(path)?, kind)?;
    let file = File::open(path)?;
    // Another file may have taken its place.
    check(&file.metadata()?, kind)?;
    Ok(file)
}

/// Reads a whole file of a kind.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path, kind: Kind) -> io::Result<Vec<u8>> {
    read_all(open(path, kind)?, kind)
}

/// Reads a whole text of a kind.
///
/// # Errors
/// As [`open`], and an error if the file is not UTF-8.
pub fn read_text(path: &Path, kind: Kind) -> io::Result<String> {
    text(read(path, kind)?)
}

/// Reads a whole text of a kind: a file, or standard input if the path is `-`.
///
/// # Errors
/// As [`read_text`].
pub fn read_input(path: &Path, kind: Kind) -> io::Result<String> {
    match path == Path::new("-") {
        true => text(read_all(io::stdin().lock(), kind)?),
        false => read_text(path, kind),
    }
}

/// Reads to the end, but one byte beyond the limit at most: the file may grow, and the size of standard input is not known.
fn read_all(source: impl Read, kind: Kind) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(kind.max_bytes + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > kind.max_bytes {
        true => Err(too_large("more than that", kind)),
        false => Ok(bytes),
    }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::new(ErrorKind::InvalidData, format!("is no UTF-8 text: byte {at} is wrong"))
    })
}

fn check(metadata: &Metadata, kind: Kind) -> io::Result<()> {
    if !metadata.is_file() {
        let what = name_of(metadata.file_type());
        let message = format!("is {what}, but must be a regular file");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let bytes = metadata.len();
    if bytes > kind.max_bytes { Err(too_large(&format!("{bytes} bytes"), kind)) } else { Ok(()) }
}

fn too_large(bytes: &str, kind: Kind) -> Error {
    let Kind { name, max_bytes } = kind;
    let message = format!("has {bytes}, but {name} has at most {max_bytes} bytes");
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(unix)]
fn name_of(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() { "a folder" } else { "a device" }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = |path: &Path| read_text(path, Kind::TOML).unwrap_err().to_string();
        assert_eq!(error(&pipe), "is a pipe, but must be a regular file");
        assert_eq!(error(folder.path()), "is a folder, but must be a regular file");
        assert_eq!(error(Path::new("/dev/zero")), "is a device, but must be a regular file");
        let sparse = folder.path().join("sparse");
        File::create(&sparse).unwrap().set_len(3 << 30).unwrap();
        let expected = "has 3221225472 bytes, but a TOML file has at most 1048576 bytes";
        assert_eq!(error(&sparse), expected);
    }

    #[test]
    fn a_text_must_be_utf_8() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        fs::write(&path, "größe").unwrap();
        assert_eq!(read_text(&path, Kind::TOML).unwrap(), "größe");
        fs::write(&path, b"gr\xf6sse").unwrap();
        let error = read_text(&path, Kind::TOML).unwrap_err().to_string();
        assert_eq!(error, "is no UTF-8 text: byte 2 is wrong");
    }

    #[test]
    fn an_endless_source_is_read_to_the_limit() {
        let kind = Kind { name: "a test", max_bytes: 1000 };
        let error = read_all(io::repeat(0), kind).unwrap_err().to_string();
        assert_eq!(error, "has more than that, but a test has at most 1000 bytes");
        assert_eq!(read_all(io::repeat(0).take(1000), kind).unwrap().len(), 1000);
    }
}
