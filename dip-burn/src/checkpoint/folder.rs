//! The checkpoints in the output folder of a run.

use std::fs;
use std::path::{Path, PathBuf};

use super::CheckpointError;

const PREFIX: &str = "checkpoint-";

/// Path of the checkpoint of an iteration.
pub fn path_of(folder: &Path, iteration: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{iteration:08}"))
}

/// The iteration of a checkpoint folder.
fn iteration_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The complete checkpoints under `folder`, oldest first; none if there is no folder.
///
/// # Errors
/// [`CheckpointError::Io`] if the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let mut found: Vec<_> = entries(folder)?
        .into_iter()
        .filter_map(|path| Some((iteration_of(&path)?, path)))
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Removes all but the newest `keep` checkpoints up to `iteration`. Later ones belong to a course of the run that was given up, or
/// are damaged, and go, too.
pub(super) fn prune(folder: &Path, iteration: u64, keep: usize) -> Result<(), CheckpointError> {
    let (kept, later): (Vec<_>, Vec<_>) =
        list(folder)?.into_iter().partition(|path| iteration_of(path) <= Some(iteration));
    kept.iter().rev().skip(keep.max(1)).chain(&later).try_for_each(|path| remove(path))
}

pub(super) fn remove(path: &Path) -> Result<(), CheckpointError> {
    fs::remove_dir_all(path).map_err(CheckpointError::io(path))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(CheckpointError::Io { path: folder.into(), source }),
    }
}
