//! Saves a run, and resumes it.

use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;

use super::Trainer;
use crate::data::SourcePosition;
use crate::params::NamedTensors;
use crate::runtime::TensorKind;
use crate::train::agreement::{agree_on_weights, gather_tensors};
use crate::train::checkpoint::{self, Checkpoint};
use crate::train::error::TrainError;

impl<B: Backend> Trainer<B> {
    /// Resumes from the newest checkpoint of the run; false if there is none. Of several processes the first reads its checkpoint
    /// and sends it to the others.
    ///
    /// # Errors
    /// [`TrainError`] if the checkpoint cannot be read or belongs to another run.
    pub fn resume(&mut self) -> Result<bool, TrainError> {
        let newest = match self.group.is_first() {
            true => checkpoint::list(&self.config.output)?.pop(),
            false => None,
        };
        let found =
            self.group.compute_on_first(|| Ok::<_, TrainError>(vec![newest.is_some().into()]))?;
        if found != [1] {
            return Ok(false);
        }
        let path = newest.unwrap_or_default();
        let file = |name: &str| {
            self.group.compute_on_first(|| Ok::<_, TrainError>(checkpoint::read(&path.join(name))?))
        };
        let checkpoint = checkpoint::parse(&path, file)?;
        self.restore(checkpoint)?;
        Ok(true)
    }

    /// Resumes from a checkpoint, which every process reads for itself.
    ///
    /// # Errors
    /// [`TrainError`] if the checkpoint cannot be read or belongs to another run.
    pub fn load(&mut self, path: &Path) -> Result<(), TrainError> {
        self.restore(checkpoint::load(path)?)
    }

    fn restore(&mut self, checkpoint: Checkpoint<SourcePosition>) -> Result<(), TrainError> {
        let Checkpoint { model, optimizer, state } = checkpoint;
        self.pipeline.import(model, optimizer, state.optimizer_steps)?;
        self.data.loader.restore(&state.data)?;
        self.prefetched = None;
        self.progress.restore(state);
        Ok(())
    }

    /// Writes a checkpoint and returns its path. Of several processes all take part, and the first writes.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] names the file; [`TrainError::Group`] a process whose weights differ.
    pub fn save(&mut self) -> Result<PathBuf, TrainError> {
        let model = self.weights()?;
        agree_on_weights(&*self.group, self.iteration(), &model)?;
        let optimizer = self.export_sharded(TensorKind::Moments)?;
        if !self.group.is_first() {
            return Ok(checkpoint::path_of(&self.config.output, self.iteration()));
        }
        let checkpoint = Checkpoint { model, optimizer, state: self.progress.to_state() };
        let keep = self.config.checkpoint.keep;
        Ok(checkpoint::save(&self.config.output, &checkpoint, keep)?)
    }

    /// Tensors of which each replica may have a shard: all of them on the first process.
    pub(super) fn export_sharded(&mut self, what: TensorKind) -> Result<NamedTensors, TrainError> {
        let own = self.pipeline.export(what)?;
        if self.config.optimizer.shard { gather_tensors(&*self.group, own) } else { Ok(own) }
    }
}
