//! Files and folders that appear whole or not at all: they are written under a temporary name and renamed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes a new file and waits until it is on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes a file whole or not at all; it may replace an older one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = partial_path(path);
    write_synced(&partial, bytes)?;
    fs::rename(&partial, path)
}

/// Makes an empty folder under a temporary name beside `folder`, and first removes the temporary folder of an earlier run. When the
/// folder is filled, [`put_in_place`] renames it.
pub(crate) fn partial_folder(folder: &Path) -> io::Result<PathBuf> {
    let partial = partial_path(folder);
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    Ok(partial)
}

/// Renames a filled [`partial_folder`] to `folder`, and replaces an older one.
pub(crate) fn put_in_place(partial: &Path, folder: &Path) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(partial, folder)?;
    File::open(parent(folder))?.sync_all()
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path `.NAME.partial` in the folder of `path`.
fn partial_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or(path.as_os_str()));
    name.push(".partial");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
