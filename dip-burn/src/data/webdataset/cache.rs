//! The folder in which shards from other machines are kept, within a number of bytes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dip_files::Kind;

/// Hexadecimal digits at the beginning of the name of a kept shard, before a dash.
const DIGITS: usize = 16;

/// A folder of shards from other machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardCache {
    /// The folder. It may hold other files, which stay.
    pub folder: PathBuf,
    /// Most bytes of all shards in it; those that were not used for the longest time go first. A single larger shard stays while it
    /// is the newest.
    pub max_bytes: u64,
}

/// A kept shard.
struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl ShardCache {
    /// The path of a shard with this identity.
    pub(super) fn path(&self, identity: u64, name: &str) -> PathBuf {
        self.folder.join(format!("{identity:016x}-{name}"))
    }

    /// Opens a kept shard, and marks it as used now. `None` if it is not there.
    ///
    /// # Errors
    /// The system's error for a file that cannot be opened.
    pub(super) fn open(&self, path: &Path) -> io::Result<Option<File>> {
        match dip_files::open(path, Kind::SHARD) {
            Ok(file) => {
                // A folder that is only read keeps its times; its shards then go in the order in which they came.
                let _ = file.set_modified(SystemTime::now());
                Ok(Some(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes shards until those that stay and `bytes` more are within the limit. Shards that are open can still be read.
    ///
    /// # Errors
    /// The system's error for a folder that cannot be read, or a shard that cannot be removed.
    pub(super) fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut kept = self.kept()?;
        kept.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        let mut all = kept.iter().fold(bytes, |sum, shard| sum.saturating_add(shard.bytes));
        for shard in kept {
            if all <= self.max_bytes {
                break;
            }
            match fs::remove_file(&shard.path) {
                // Another run has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            all = all.saturating_sub(shard.bytes);
        }
        Ok(())
    }

    fn kept(&self) -> io::Result<Vec<Kept>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_str().is_some_and(is_shard) {
                continue;
            }
            // It may be gone by now.
            let Ok(metadata) = entry.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            all.push(Kept { path: entry.path(), bytes: metadata.len(), used });
        }
        Ok(all)
    }
}

/// True for the name of a kept shard.
fn is_shard(name: &str) -> bool {
    let (digits, rest) = name.split_at_checked(DIGITS).unwrap_or(("", ""));
    rest.starts_with('-') && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn shards_that_were_not_used_for_long_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ShardCache { folder: folder.path().to_owned(), max_bytes: 250 };
        let path = |i: u64| cache.path(i, "a.tar");
        for i in 0..3 {
            let file = File::create(path(i)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(i)).unwrap();
        }
        fs::write(folder.path().join("notes.txt"), [0; 500]).unwrap();
        // The first is used again, so the second is the oldest.
        assert!(cache.open(&path(0)).unwrap().is_some());
        let there = || [0, 1, 2].map(|i| path(i).exists());
        cache.make_room(50).unwrap();
        assert_eq!(there(), [true, false, true]);
        cache.make_room(50).unwrap();
        assert_eq!(there(), [true, false, true], "250 bytes are within the limit");
        cache.make_room(150).unwrap();
        assert_eq!(there(), [true, false, false]);
        cache.make_room(1000).unwrap();
        assert_eq!(there(), [false; 3]);
        assert!(
            folder.path().join("notes.txt").exists() && cache.open(&path(1)).unwrap().is_none()
        );
    }
}
