//! Reads and writes files: inputs are bounded in size, and outputs appear whole or not at all.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Size limit of a text file.
const MAX_TEXT_BYTES: u64 = 2 << 30;

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("{shown}: cannot be opened"))?;
    let mut text = String::new();
    // Reads one byte beyond the limit: the size of a pipe, or of a file that grows, is not known before.
    let read = file
        .take(MAX_TEXT_BYTES + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("{shown}: cannot be read as UTF-8 text"))?;
    if read as u64 > MAX_TEXT_BYTES {
        bail!("{shown}: over the limit of {MAX_TEXT_BYTES} bytes; split the file");
    }
    Ok(text)
}

/// Writes a file under a temporary name beside its target, and renames it. Writes directly to targets that are not files, such as
/// `/dev/stdout` or a pipe.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let shown = path.display();
    if fs::metadata(path).is_ok_and(|target| !target.is_file() && !target.is_dir()) {
        return fs::write(path, bytes).with_context(|| format!("{shown}: cannot be written"));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).with_context(|| format!("{shown}: its folder cannot be made"))?;
    let mut file = temporary()
        .tempfile_in(folder)
        .with_context(|| format!("{shown}: its folder cannot be written"))?;
    file.write_all(bytes).with_context(|| format!("{shown}: cannot be written"))?;
    file.persist(path).with_context(|| format!("{shown}: cannot be put in place"))?;
    Ok(())
}

/// A temporary file with the permissions of any new file; by default only its owner may read it.
fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".dip-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn outputs_have_the_permissions_of_any_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, plain) = (folder.path().join("whole"), folder.path().join("plain"));
        write_whole(&whole, b"text").unwrap();
        fs::write(&plain, b"text").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&whole), mode(&plain));
    }

    #[test]
    fn a_device_is_written_to_and_stays() {
        write_whole(Path::new("/dev/null"), b"text").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
