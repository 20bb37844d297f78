//! The lock of an output folder: one run writes to it at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The file that is locked.
const NAME: &str = ".lock";
/// Longest text that is read from it.
const MAX_OWNER_BYTES: u64 = 256;

/// An output folder that no other run can use until this is dropped. The system releases it when its process dies.
#[derive(Debug)]
pub struct OutputLock {
    /// `None` on a file system without locks.
    _file: Option<File>,
}

/// An output folder that cannot be locked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another run uses the folder.
    #[error(
        "output: {} is used by another run ({owner}); wait for it, end it, or choose another output",
        folder.display()
    )]
    Used {
        /// The folder.
        folder: PathBuf,
        /// What the other run says about itself.
        owner: String,
    },
    /// The lock file cannot be made.
    #[error("{}: {source}; check the disk and the permissions of the folder", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl OutputLock {
    /// Locks an output folder, which is made if need be, and removes the temporary files that a killed run has left there.
    ///
    /// # Errors
    /// [`LockError::Used`] if another run has locked it.
    pub fn acquire(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join(NAME);
        let io = |source| LockError::Io { path: path.clone(), source };
        fs::create_dir_all(folder).map_err(io)?;
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let read = file.take(MAX_OWNER_BYTES).read_to_string(&mut owner);
                let known = read.is_ok() && !owner.trim().is_empty();
                let owner = if known { owner.trim().to_owned() } else { "unknown".into() };
                return Err(LockError::Used { folder: folder.into(), owner });
            }
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {
                return Ok(Self { _file: None });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        dip_files::remove_partial(folder).map_err(io)?;
        // Only for the message of another run: a full disk does not matter.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id()));
        Ok(Self { _file: Some(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_until_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("a/b");
        fs::create_dir_all(&output).unwrap();
        fs::write(output.join(".profile.json.1.partial"), "left by a killed run").unwrap();
        let first = OutputLock::acquire(&output).unwrap();
        assert!(!output.join(".profile.json.1.partial").exists());
        let error = OutputLock::acquire(&output).unwrap_err().to_string();
        let process = format!("used by another run (process {})", std::process::id());
        assert!(error.contains(&process) && error.contains("choose another output"), "{error}");
        drop(first);
        OutputLock::acquire(&output).unwrap();
    }
}
