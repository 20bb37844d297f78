//! Checkpoints: a folder with `model.safetensors`, `optimizer.safetensors` and `state.json`.
//!
//! A checkpoint is written under a temporary name, flushed to the disk and renamed, so that a killed run leaves only complete
//! checkpoints. Tensors have the names of [`params`](crate::params), which do not depend on the partition.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::EarlyStop;
use super::loss_scale::LossScale;
use crate::files;
use crate::floats::floats;
use crate::params::NamedTensors;

/// The schema name of `state.json`.
pub const CHECKPOINT_SCHEMA: &str = "dip.checkpoint/v1";
const PREFIX: &str = "checkpoint-";
/// The files of a checkpoint, in the order in which they are read.
const FILES: [&str; 3] = ["state.json", "model.safetensors", "optimizer.safetensors"];
/// Largest file that is read: guards against files that are not checkpoints.
const MAX_FILE_BYTES: u64 = 1 << 40;

/// Everything a run needs to resume as if it had not stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint<S> {
    /// Weights.
    pub model: NamedTensors,
    /// Optimiser state: moments, `<parameter>.moment_1`, `.moment_2` or `.velocity`, and averaged weights, `.average`.
    pub optimizer: NamedTensors,
    /// Progress of the run.
    pub state: RunState<S>,
}

/// Progress of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState<S> {
    /// [`CHECKPOINT_SCHEMA`].
    pub schema: String,
    /// Completed iterations.
    pub iteration: u64,
    /// Completed optimiser steps, for Adam's bias correction and the learning rate.
    pub optimizer_steps: u64,
    /// The best held-out loss, for early stopping.
    #[serde(default)]
    pub early_stop: EarlyStop,
    /// The loss scale; absent in checkpoints of versions without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// Position in the data.
    pub data: S,
}

/// A checkpoint that could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file could not be read or written.
    #[error("{}: {source}; check the disk and the permissions of the folder", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file has the wrong content.
    #[error("{}: {what}; remove this checkpoint folder to resume from the previous checkpoint", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The fault of its content.
        what: String,
    },
}

/// Path of the checkpoint of an iteration.
pub(super) fn path_of(folder: &Path, iteration: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{iteration:08}"))
}

/// Writes `checkpoint-<iteration>` under `folder` and removes all but the newest `keep`.
///
/// # Errors
/// [`CheckpointError`]; older checkpoints stay intact.
pub fn save<S: Serialize>(
    folder: &Path,
    checkpoint: &Checkpoint<S>,
    keep: usize,
) -> Result<PathBuf, CheckpointError> {
    let target = path_of(folder, checkpoint.state.iteration);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Io { path, source }
    };
    fs::create_dir_all(folder).map_err(io(folder))?;
    for stale in partial_folders(folder)? {
        fs::remove_dir_all(&stale).map_err(io(&stale))?;
    }
    let partial = files::partial_folder(&target).map_err(io(&target))?;
    write_tensors(&partial.join("model.safetensors"), &checkpoint.model)?;
    write_tensors(&partial.join("optimizer.safetensors"), &checkpoint.optimizer)?;
    let text = serde_json::to_vec_pretty(&checkpoint.state).expect("plain data has a JSON form");
    write_synced(&partial.join("state.json"), &text)?;
    files::put_in_place(&partial, &target).map_err(io(&target))?;
    let all = list(folder)?;
    for old in all.iter().rev().skip(keep.max(1)) {
        fs::remove_dir_all(old).map_err(io(old))?;
    }
    Ok(target)
}

/// The complete checkpoints under `folder`, oldest first; none if there is no folder.
///
/// # Errors
/// [`CheckpointError::Io`] if the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    entries(folder, |name| name.strip_prefix(PREFIX).is_some_and(is_number))
}

/// Folders that killed runs left half-written.
fn partial_folders(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    entries(folder, |name| name.starts_with(&format!(".{PREFIX}")) && name.ends_with(".partial"))
}

fn entries(folder: &Path, keep: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, CheckpointError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(CheckpointError::Io { path: folder.into(), source }),
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(&keep))
        .collect();
    found.sort();
    Ok(found)
}

/// Reads a checkpoint.
///
/// # Errors
/// [`CheckpointError`] names the file and what is wrong with it.
pub fn load<S: DeserializeOwned>(path: &Path) -> Result<Checkpoint<S>, CheckpointError> {
    parse(path, |name| read(&path.join(name)))
}

/// Reads a checkpoint whose files come from `file`; `path` is named in errors.
///
/// # Errors
/// Errors of `file`, and [`CheckpointError`] if a file has the wrong content.
pub(super) fn parse<S: DeserializeOwned, E: From<CheckpointError>>(
    path: &Path,
    file: impl Fn(&str) -> Result<Vec<u8>, E>,
) -> Result<Checkpoint<S>, E> {
    let [state, model, optimizer] = FILES;
    let format = |what: String| CheckpointError::Format { path: path.join(state), what };
    let state: RunState<S> =
        serde_json::from_slice(&file(state)?).map_err(|e| format(e.to_string()))?;
    if state.schema != CHECKPOINT_SCHEMA {
        let what = format!("schema {:?} is not {CHECKPOINT_SCHEMA:?}", state.schema);
        return Err(format(what).into());
    }
    let tensors = |name| from_bytes(&path.join(name), &file(name)?).map_err(E::from);
    Ok(Checkpoint { model: tensors(model)?, optimizer: tensors(optimizer)?, state })
}

/// One file of a checkpoint.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.into(), source };
    let length = fs::metadata(path).map_err(io)?.len();
    if length > MAX_FILE_BYTES {
        let what = format!("{length} bytes are over the limit of {MAX_FILE_BYTES}");
        return Err(CheckpointError::Format { path: path.into(), what });
    }
    fs::read(path).map_err(io)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    files::write_synced(path, bytes)
        .map_err(|source| CheckpointError::Io { path: path.into(), source })
}

fn write_tensors(path: &Path, tensors: &NamedTensors) -> Result<(), CheckpointError> {
    write_synced(path, &to_bytes(path, tensors)?)
}

/// Tensors as safetensors; `path` is named in errors.
pub(super) fn to_bytes(path: &Path, tensors: &NamedTensors) -> Result<Vec<u8>, CheckpointError> {
    let format = |what: String| CheckpointError::Format { path: path.into(), what };
    let mut views = BTreeMap::new();
    for (name, data) in tensors {
        let view = TensorView::new(Dtype::F32, data.shape.to_vec(), data.as_bytes());
        views.insert(name.as_str(), view.map_err(|e| format(format!("{name}: {e}")))?);
    }
    safetensors::serialize(views, None).map_err(|e| format(e.to_string()))
}

/// Reads [`to_bytes`]; `path` is named in errors.
pub(super) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<NamedTensors, CheckpointError> {
    let format = |what: String| CheckpointError::Format { path: path.into(), what };
    let file = SafeTensors::deserialize(bytes).map_err(|e| format(e.to_string()))?;
    let mut tensors = NamedTensors::new();
    for (name, view) in file.iter() {
        let values = match view.dtype() {
            Dtype::F32 => floats(view.data(), Dtype::F32).unwrap_or_default(),
            other => return Err(format(format!("{name} is {other:?}, but must be F32"))),
        };
        tensors.insert(name.to_owned(), TensorData::new(values, view.shape().to_vec()));
    }
    Ok(tensors)
}
