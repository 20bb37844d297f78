//! Writes files and folders that appear whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The end of temporary names.
const PARTIAL: &str = ".partial";

/// Writes a new file and waits until it is on the disk.
///
/// # Errors
/// The system's error.
pub fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes a file whole or not at all; it may replace an older one. Makes its folder if need be. Writes directly to targets that are not
/// files, such as `/dev/stdout` or a pipe.
///
/// # Errors
/// The system's error; the older file stays as it is.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|target| !target.is_file() && !target.is_dir()) {
        return fs::write(path, bytes);
    }
    fs::create_dir_all(parent(path))?;
    let partial = hidden(path, &format!(".{}{PARTIAL}", std::process::id()));
    let written = write_synced(&partial, bytes).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // What is left is of no use, and the error of the file says more.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Makes an empty folder under a temporary name beside `folder`, and first removes the temporary folder of an earlier run. When the
/// folder is filled, [`put_in_place`] renames it.
///
/// # Errors
/// The system's error.
pub fn partial_folder(folder: &Path) -> io::Result<PathBuf> {
    let partial = partial_path(folder);
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    Ok(partial)
}

/// Removes the files and folders under temporary names that killed processes have left in a folder. No other process may be writing
/// there.
///
/// # Errors
/// The system's error. A folder that does not exist has none.
pub fn remove_partial(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(PARTIAL) {
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
    }
    Ok(())
}

/// Renames a filled [`partial_folder`] to `folder`, and replaces an older one.
///
/// # Errors
/// The system's error.
pub fn put_in_place(partial: &Path, folder: &Path) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(partial, folder)?;
    sync_folder(parent(folder))
}

/// Waits until the names in a folder are on the disk.
///
/// # Errors
/// The system's error.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder that holds `path`.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path `.NAME.partial` in the folder of `path`, which [`partial_folder`] makes.
pub fn partial_path(path: &Path) -> PathBuf {
    hidden(path, PARTIAL)
}

/// The path `.NAME` with this end in the folder of `path`.
fn hidden(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or(path.as_os_str()));
    name.push(end);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_processes_have_left_is_removed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(".a.partial/rest")).unwrap();
        for name in [".b.123.partial", "c.partial", ".lock", "d"] {
            fs::write(root.path().join(name), name).unwrap();
        }
        remove_partial(root.path()).unwrap();
        remove_partial(&root.path().join("absent")).unwrap();
        let entries = fs::read_dir(root.path()).unwrap();
        let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".lock", "c.partial", "d"]);
    }

    #[test]
    fn a_file_and_a_folder_replace_older_ones_and_leave_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (file, folder) = (root.path().join("a.json"), root.path().join("b"));
        for content in ["old", "new"] {
            write_whole(&file, content.as_bytes()).unwrap();
            // The remains of a run that was killed while it wrote.
            fs::create_dir_all(root.path().join(".b.partial/rest")).unwrap();
            let partial = partial_folder(&folder).unwrap();
            write_synced(&partial.join("c"), content.as_bytes()).unwrap();
            put_in_place(&partial, &folder).unwrap();
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::read_to_string(folder.join("c")).unwrap(), "new");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_stays() {
        write_whole(Path::new("/dev/null"), b"text").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_file_that_cannot_be_put_in_place_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("new/folder");
        fs::create_dir_all(target.join("full")).unwrap();
        assert!(write_whole(&target, b"text").is_err());
        assert_eq!(fs::read_dir(root.path().join("new")).unwrap().count(), 1);
    }
}
