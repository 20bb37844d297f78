//! Reads a checkpoint: its state, and tensors one by one.

use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use dip_files::Kind;
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::checksums::{self, Checksums};
use super::index::Index;
use super::{CheckpointError, INDEX, MODEL, SCHEMA, folder};
use crate::params::TensorSource;
use crate::weights::TensorStore;

/// A checkpoint whose index is whole. Its tensors are read when they are asked for.
#[derive(Debug)]
pub struct CheckpointReader {
    path: PathBuf,
    index: Index<Value>,
    checksums: Checksums,
    tensors: TensorStore,
}

impl CheckpointReader {
    /// Opens a checkpoint and checks its index and the headers of its files. [`verify`](Self::verify) checks the files whole.
    ///
    /// # Errors
    /// [`CheckpointError`] names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let index_path = path.join(INDEX);
        if !index_path.exists() && path.join("state.json").exists() {
            let (path, schema) = (path.into(), "dip.checkpoint/v1".into());
            return Err(CheckpointError::Version { path, schema });
        }
        let checksums = checksums::read(path)?;
        check(&index_path, &checksums)?;
        let bytes = dip_files::read(&index_path, Kind::CHECKPOINT_INDEX)
            .map_err(CheckpointError::io(&index_path))?;
        let index: Index<Value> =
            serde_json::from_slice(&bytes).map_err(|e| CheckpointError::damaged(&index_path, e))?;
        if index.schema != SCHEMA {
            return Err(CheckpointError::Version { path: path.into(), schema: index.schema });
        }
        let files: Vec<PathBuf> = index.files.keys().map(|name| path.join(name)).collect();
        for (file, bytes) in files.iter().zip(index.files.values()) {
            let found = std::fs::metadata(file).map_err(CheckpointError::io(file))?.len();
            if found != *bytes {
                let what = format!("has {found} bytes, but {bytes} were written");
                return Err(CheckpointError::damaged(file, what));
            }
        }
        let tensors =
            TensorStore::open_files(path, &files).map_err(|e| CheckpointError::damaged(path, e))?;
        Ok(Self { path: path.into(), index, checksums, tensors })
    }

    /// Opens the newest checkpoint of a run that is whole.
    ///
    /// # Errors
    /// [`CheckpointError`] if there are checkpoints, but none is whole.
    pub fn open_newest(output: &Path) -> Result<Option<Self>, CheckpointError> {
        let all = folder::list(output)?;
        let mut newest = None;
        for path in all.iter().rev() {
            let opened = Self::open(path).and_then(|reader| reader.verify(0, 1).map(|()| reader));
            match opened {
                Ok(reader) => return Ok(Some(reader)),
                Err(error) if error.is_damage() => {
                    newest.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Self::all_damaged(output, all.len(), newest).map_or(Ok(None), Err)
    }

    /// The error of a run none of whose checkpoints is whole.
    pub(crate) fn all_damaged(
        output: &Path,
        count: usize,
        newest: Option<CheckpointError>,
    ) -> Option<CheckpointError> {
        let folder = output.to_owned();
        newest.map(|newest| CheckpointError::AllDamaged { folder, count, newest: newest.into() })
    }

    /// Reads the files whole and compares them with their checksums. Of `count` processes, each checks a part of the files, number
    /// `part` from 0.
    ///
    /// # Errors
    /// [`CheckpointError`] names the first file that differs.
    pub fn verify(&self, part: usize, count: usize) -> Result<(), CheckpointError> {
        let names: Vec<_> = self.index.files.keys().skip(part).step_by(count).collect();
        names.par_iter().try_for_each(|name| check(&self.path.join(name), &self.checksums))
    }

    /// The folder of the checkpoint.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The progress of the run.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] if it is that of another kind of run.
    pub fn state<S: DeserializeOwned>(&self) -> Result<S, CheckpointError> {
        let damaged = |e| CheckpointError::damaged(&self.path.join(INDEX), e);
        serde_json::from_value(self.index.state.clone()).map_err(damaged)
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.names()
    }

    /// The weights, without the state of the optimiser.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] if their files cannot be read.
    pub fn weights(&self) -> Result<TensorStore, CheckpointError> {
        let files = self.index.files.keys().filter(|name| name.starts_with(MODEL));
        let files: Vec<PathBuf> = files.map(|name| self.path.join(name)).collect();
        TensorStore::open_files(&self.path, &files)
            .map_err(|e| CheckpointError::damaged(&self.path, e))
    }
}

/// Reads the bytes of one tensor and no others.
impl TensorSource for CheckpointReader {
    fn tensor(&self, name: &str) -> Result<Option<TensorData>, String> {
        let Some(shape) = self.tensors.shape(name) else { return Ok(None) };
        let values = self.tensors.all(name).map_err(|e| e.to_string())?;
        Ok(Some(TensorData::new(values, shape.to_vec())))
    }
}

/// Compares a file with its checksum.
fn check(path: &Path, checksums: &Checksums) -> Result<(), CheckpointError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let found = checksums::of_file(path)?;
    match checksums.get(name) {
        Some(sum) if *sum == found => Ok(()),
        Some(sum) => {
            let what = format!("its checksum is {found}, but {sum} was written");
            Err(CheckpointError::damaged(path, what))
        }
        None => Err(CheckpointError::damaged(path, "has no checksum")),
    }
}
