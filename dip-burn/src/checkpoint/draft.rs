//! A checkpoint that is being written.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::checksums::{self, Checksums};
use super::index::Index;
use super::{CheckpointError, INDEX, ShardFile, folder};

/// A checkpoint under a temporary name. One process creates it, all ranks write their files into it, and the first process commits
/// it. A draft that is not committed is removed by the next one.
#[derive(Debug)]
pub struct Draft {
    output: PathBuf,
    iteration: u64,
    partial: PathBuf,
}

impl Draft {
    /// Makes an empty draft in the output folder of a run, and removes what a killed run has left there.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if the folder cannot be written.
    pub fn create(output: &Path, iteration: u64) -> Result<Self, CheckpointError> {
        fs::create_dir_all(output).map_err(CheckpointError::io(output))?;
        dip_files::remove_partial(output).map_err(CheckpointError::io(output))?;
        let target = folder::path_of(output, iteration);
        let partial = dip_files::partial_folder(&target).map_err(CheckpointError::io(&target))?;
        Ok(Self { output: output.into(), iteration, partial })
    }

    /// The draft that another process has created.
    ///
    /// # Errors
    /// [`CheckpointError::NotShared`] if this process does not see it.
    pub fn join(output: &Path, iteration: u64) -> Result<Self, CheckpointError> {
        let partial = dip_files::partial_path(&folder::path_of(output, iteration));
        match partial.is_dir() {
            true => Ok(Self { output: output.into(), iteration, partial }),
            false => Err(CheckpointError::NotShared { path: partial }),
        }
    }

    /// The folder that files are written to.
    pub fn folder(&self) -> &Path {
        &self.partial
    }

    /// Writes the index and the checksums of all files, and renames the folder. Keeps the newest `keep` checkpoints up to this one,
    /// and none after it.
    ///
    /// # Errors
    /// [`CheckpointError`]; older checkpoints stay as they are.
    pub fn commit<S: Serialize>(
        &self,
        state: &S,
        shards: &[ShardFile],
        keep: usize,
    ) -> Result<PathBuf, CheckpointError> {
        for shard in shards {
            let path = self.partial.join(&shard.name);
            if !fs::metadata(&path).is_ok_and(|file| file.len() == shard.bytes) {
                return Err(CheckpointError::NotShared { path });
            }
        }
        let text = serde_json::to_vec_pretty(&Index::new(state, shards));
        let text = text.expect("plain data has a JSON form");
        let path = self.partial.join(INDEX);
        dip_files::write_synced(&path, &text).map_err(CheckpointError::io(&path))?;
        let sums = shards.iter().map(|shard| (shard.name.clone(), shard.xxh3.clone()));
        let mut sums: Checksums = sums.collect();
        sums.insert(INDEX.into(), checksums::of_file(&path)?);
        checksums::write(&self.partial, &sums)?;
        dip_files::sync_folder(&self.partial).map_err(CheckpointError::io(&self.partial))?;
        let target = folder::path_of(&self.output, self.iteration);
        dip_files::put_in_place(&self.partial, &target).map_err(CheckpointError::io(&target))?;
        folder::prune(&self.output, self.iteration, keep)?;
        Ok(target)
    }

    /// Removes the draft, after an error.
    pub fn discard(self) {
        // The next draft removes what is left.
        let _ = fs::remove_dir_all(&self.partial);
    }
}
