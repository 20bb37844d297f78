//! One rank's part in work that only runs forwards: evaluation, captions and samples.
//!
//! A session begins with the present weights of the rank, or with their averages if the run keeps them, and holds what is kept
//! between its jobs. Weights are shared with the chunks that train, averages with the optimiser: nothing is copied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::backend::Backend;
use dip_core::{
    ExecError, Interpreter, Program, RankHost, RankId, Seconds, SegmentId, Stage, StageError,
    TaskId,
};

use super::chunks::Chunks;
use super::link::RankLink;
use super::optimizer::Optimizer;
use super::replica::Replica;
use crate::params::MapParameters;
use crate::stage::{ForwardStage, ForwardWork, Payload};

/// Forwards of one rank.
pub(super) struct ForwardJob<B: Backend> {
    pub program: Arc<Program>,
    pub work: Arc<ForwardWork>,
    pub link: RankLink<B>,
}

/// The values that an end of the model gave in one task.
pub(super) type ForwardAnswer = (TaskId, Vec<f32>);

/// The chunks of a rank as they run forwards.
pub(super) struct ForwardSession<B: Backend> {
    rank: RankId,
    stages: BTreeMap<(String, SegmentId), ForwardStage<B>>,
}

impl<B: Backend> ForwardSession<B> {
    /// The chunks with their present weights, or with the averages of `optimizer`. If replicas share the optimiser state, each of
    /// them must begin a session at the same time.
    ///
    /// # Errors
    /// [`StageError::PeerGone`] if another replica has ended.
    pub fn begin(
        rank: RankId,
        chunks: &Chunks<B>,
        optimizer: &Optimizer<B>,
        replica: &Replica<B>,
    ) -> Result<Self, StageError> {
        let stages = chunks.iter().map(|(key, chunk)| (key.clone(), chunk.for_forwards()));
        let mut stages: BTreeMap<_, _> = stages.collect();
        if let Some(mut averages) = optimizer.averaged() {
            stages.values_mut().for_each(|stage| stage.map_parameters(&mut averages));
            replica.gather_parameters(&mut stages)?;
        }
        Ok(Self { rank, stages })
    }

    /// Runs the forwards of this rank, and returns what its ends of the model gave.
    ///
    /// # Errors
    /// [`ExecError`] if a stage or a link fails.
    pub fn run(&mut self, job: ForwardJob<B>) -> Result<Vec<ForwardAnswer>, ExecError> {
        let ForwardJob { program, work, mut link } = job;
        self.stages.values_mut().for_each(|stage| stage.begin(work.clone()));
        let rank = self.rank;
        let mut host = ForwardHost { session: self, epoch: Instant::now() };
        Interpreter::new(&program, rank).run(&mut host, &mut *link)?;
        let mut answers = Vec::new();
        for stage in self.stages.values_mut() {
            let failed = |error| StageError::Failed(Box::new(error));
            let of_stage = stage.finish().map_err(failed);
            answers.extend(of_stage.map_err(|source| ExecError::Stage { rank, source })?);
        }
        Ok(answers)
    }
}

struct ForwardHost<'a, B: Backend> {
    session: &'a mut ForwardSession<B>,
    epoch: Instant,
}

impl<B: Backend> RankHost for ForwardHost<'_, B> {
    type Payload = Payload<B>;

    fn now(&self) -> Seconds {
        Seconds(self.epoch.elapsed().as_secs_f64())
    }

    fn stage(
        &mut self,
        module: &str,
        segment: SegmentId,
    ) -> Option<&mut dyn Stage<Payload = Self::Payload>> {
        let stage = self.session.stages.get_mut(&(module.to_owned(), segment))?;
        Some(stage)
    }

    fn step(&mut self) -> Result<(), StageError> {
        Ok(())
    }
}
