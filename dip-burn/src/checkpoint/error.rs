//! Errors of checkpoints.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A checkpoint that could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file could not be read or written.
    #[error("{}: {source}; {}", path.display(), remedy(source.kind()))]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is cut off or has other bytes than were written.
    #[error("{}: {what}; the checkpoint is damaged: remove it to resume from the one before", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        what: String,
    },
    /// No checkpoint of a run can be used.
    #[error(
        "{}: all {count} checkpoints are damaged; the newest: {newest}. Copy one back from a backup, or start anew with --restart",
        folder.display()
    )]
    AllDamaged {
        /// The output folder.
        folder: PathBuf,
        /// Number of checkpoints.
        count: usize,
        /// The fault of the newest.
        newest: Box<Self>,
    },
    /// Another version has written the checkpoint.
    #[error(
        "{}: its schema is {schema:?}, but this version reads {:?}; continue it with the version that wrote it, or start anew with \
         --restart",
        path.display(),
        super::SCHEMA
    )]
    Version {
        /// The checkpoint.
        path: PathBuf,
        /// Its schema.
        schema: String,
    },
    /// A process does not see what another one has written.
    #[error(
        "{}: is not the same folder in all processes; set output to a folder of a file system that all machines share",
        path.display()
    )]
    NotShared {
        /// The folder or file.
        path: PathBuf,
    },
    /// Another process could not write or read its part.
    #[error("process {process}: {what}")]
    Process {
        /// The process.
        process: usize,
        /// Its error.
        what: String,
        /// True if an older checkpoint may be whole.
        is_damage: bool,
    },
}

impl CheckpointError {
    /// Turns a system error about `path` into [`CheckpointError::Io`].
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }

    /// A file of a checkpoint with a fault.
    pub(super) fn damaged(path: &Path, what: impl ToString) -> Self {
        Self::Damaged { path: path.into(), what: what.to_string() }
    }

    /// True if an older checkpoint may be whole.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Io { .. } => true,
            Self::Process { is_damage, .. } => *is_damage,
            _ => false,
        }
    }
}

fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "make room, or raise the limit, and resume from the last checkpoint with --resume"
        }
        _ => "check the disk and the permissions of the folder",
    }
}
