//! Saves a run, and resumes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::Trainer;
use crate::checkpoint::{self, CheckpointError, CheckpointReader, Draft, ShardFile};
use crate::data::SourcePosition;
use crate::params::NamedTensors;
use crate::runtime::TensorKind;
use crate::train::agreement::{agree_on_weights, gather_tensors, share_results};
use crate::train::error::TrainError;
use crate::train::state::{RunFacts, RunState};

/// The checkpoint from which a run resumes.
#[derive(Debug)]
pub struct Resumed {
    /// Its folder.
    pub checkpoint: PathBuf,
    /// The faults of newer checkpoints, which are damaged.
    pub damaged: Vec<CheckpointError>,
}

impl<B: Backend> Trainer<B> {
    /// Resumes from the newest checkpoint of the run that is whole; `None` if there is no checkpoint. Of several processes each checks
    /// a part of the files, and each rank reads its own tensors.
    ///
    /// # Errors
    /// [`TrainError`] if no checkpoint is whole, or the newest belongs to another run.
    pub fn resume(&mut self) -> Result<Option<Resumed>, TrainError> {
        let names = self.group.compute_on_first(|| {
            let all = checkpoint::list(&self.config.output)?;
            let names = all.iter().rev().filter_map(|path| path.file_name()?.to_str());
            Ok::<_, TrainError>(names.collect::<Vec<_>>().join("\n").into_bytes())
        })?;
        let names = String::from_utf8_lossy(&names).into_owned();
        let mut damaged = Vec::new();
        for name in names.lines() {
            let path = self.config.output.join(name);
            match self.open_together(&path)? {
                Ok(reader) => {
                    self.restore(reader)?;
                    return Ok(Some(Resumed { checkpoint: path, damaged }));
                }
                Err(error) if error.is_damage() => damaged.push(error),
                Err(error) => return Err(error.into()),
            }
        }
        let (output, count) = (&self.config.output, damaged.len());
        match CheckpointReader::all_damaged(output, count, damaged.into_iter().next()) {
            Some(error) => Err(error.into()),
            None => Ok(None),
        }
    }

    /// Resumes from a checkpoint.
    ///
    /// # Errors
    /// [`TrainError`] if the checkpoint is damaged or belongs to another run.
    pub fn load(&mut self, path: &Path) -> Result<(), TrainError> {
        let reader = self.open_together(path)??;
        self.restore(reader)
    }

    /// Opens a checkpoint in all processes, each of which checks a part of its files.
    fn open_together(
        &self,
        path: &Path,
    ) -> Result<Result<CheckpointReader, CheckpointError>, TrainError> {
        let open = || {
            let reader = CheckpointReader::open(path)?;
            reader.verify(self.group.index(), self.group.size())?;
            Ok(reader)
        };
        self.share(open())
    }

    fn restore(&mut self, reader: CheckpointReader) -> Result<(), TrainError> {
        let state: RunState<SourcePosition> = reader.state()?;
        self.pipeline.read(&Arc::new(reader), state.optimizer_steps)?;
        self.data.loader.restore(&state.data)?;
        self.prefetched = None;
        self.progress.restore(state);
        Ok(())
    }

    /// Writes a checkpoint and returns its path. All ranks of all processes write their own tensors at once, and the first process
    /// commits the folder.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] names the file; older checkpoints stay whole, and the run can continue. [`TrainError::Group`] names a
    /// process whose weights differ.
    pub fn save(&mut self) -> Result<PathBuf, TrainError> {
        self.agree_on_weights()?;
        let draft = self.draft()??;
        let saved = match self.fill(&draft)? {
            Ok(shards) => self.commit(&draft, &shards)?,
            Err(error) => Err(error),
        };
        if saved.is_err() && self.group.is_first() {
            draft.discard();
        }
        Ok(saved?)
    }

    /// The folder that all processes write to.
    fn draft(&self) -> Result<Result<Draft, CheckpointError>, TrainError> {
        let (output, iteration) = (&self.config.output, self.iteration());
        let created = self.group.is_first().then(|| Draft::create(output, iteration));
        match self.share(created.transpose())? {
            Ok(Some(draft)) => self.share(Ok(draft)),
            Ok(None) => self.share(Draft::join(output, iteration)),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Lets all ranks write, and returns the files of all processes.
    fn fill(
        &mut self,
        draft: &Draft,
    ) -> Result<Result<Vec<ShardFile>, CheckpointError>, TrainError> {
        let own = self.pipeline.write(draft.folder())?;
        let own = own.map(|files| serde_json::to_vec(&files).expect("plain data has a JSON form"));
        let files = |(process, part): (usize, Vec<u8>)| {
            let files: Result<Vec<ShardFile>, _> = serde_json::from_slice(&part);
            files.map_err(|e| CheckpointError::Process {
                process,
                what: e.to_string(),
                is_damage: false,
            })
        };
        let all = share_results(&*self.group, own)?.and_then(|parts| {
            parts.into_iter().enumerate().map(files).collect::<Result<Vec<_>, _>>()
        });
        Ok(all.map(|files| files.into_iter().flatten().collect()))
    }

    /// Lets the first process commit the draft.
    fn commit(
        &self,
        draft: &Draft,
        shards: &[ShardFile],
    ) -> Result<Result<PathBuf, CheckpointError>, TrainError> {
        let target = checkpoint::path_of(&self.config.output, self.iteration());
        self.share(match self.group.is_first() {
            true => {
                let state = self.progress.to_state(self.facts());
                draft.commit(&state, shards, self.config.checkpoint.keep)
            }
            false => Ok(target),
        })
    }

    /// The result of this process, or the error of the first process that has one.
    fn share<T>(
        &self,
        own: Result<T, CheckpointError>,
    ) -> Result<Result<T, CheckpointError>, TrainError> {
        let (result, own) = match own {
            Ok(own) => (Ok(Vec::new()), Some(own)),
            Err(error) => (Err(error), None),
        };
        let all = share_results(&*self.group, result)?;
        Ok(all.map(|_| own.expect("this process has no error")))
    }

    fn facts(&self) -> RunFacts {
        RunFacts {
            version: env!("CARGO_PKG_VERSION").into(),
            name: self.config.name.clone(),
            model: self.config.model.clone(),
            seed: self.config.seed,
            ranks: self.partition.ranks,
            replicas: self.pipeline.grid().replicas(),
        }
    }

    /// Checks that the replicas of every rank have the same weights. All processes must call it.
    pub(super) fn agree_on_weights(&mut self) -> Result<(), TrainError> {
        if self.group.size() == 1 || self.pipeline.grid().replicas() == 1 {
            return Ok(());
        }
        let own = self.pipeline.fingerprints()?;
        Ok(agree_on_weights(&*self.group, self.pipeline.grid(), self.progress.iteration, &own)?)
    }

    /// The weights of all ranks on the first process; only its own on the others. All processes must call it.
    pub(super) fn gather_weights(&mut self) -> Result<NamedTensors, TrainError> {
        if self.group.size() == 1 {
            return Ok(self.pipeline.export(TensorKind::Parameters)?);
        }
        // Replicas have equal weights.
        let mut own = self.pipeline.grid().hosted(self.group.index());
        own.retain(|position| position.replica == 0);
        let own = self.pipeline.export_from(TensorKind::Parameters, own)?;
        Ok(gather_tensors(&*self.group, own.into_values().flatten().collect())?)
    }
}
