//! Commands to the ranks and their replies; a rank that fails ends the pipeline with the first cause.

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use burn::tensor::backend::Backend;
use dip_core::RankId;

use super::Pipeline;
use crate::runtime::error::{PipelineError, ended, out_of_turn};
use crate::runtime::worker::{Failure, RankCommand, Reply};

/// Longest wait for the first cause of a failure.
const CAUSE_PATIENCE: Duration = Duration::from_secs(2);
/// Time between two looks whether another process is the cause.
const LOOK: Duration = Duration::from_millis(20);

impl<B: Backend> Pipeline<B> {
    pub(super) fn command(
        &mut self,
        id: usize,
        command: RankCommand<B>,
    ) -> Result<(), PipelineError> {
        let sent = self.workers[id].commands.as_ref().map(|commands| commands.send(command));
        match sent {
            Some(Ok(())) => Ok(()),
            // The rank's own account, if it left one, says more than the closed channel.
            _ => match self.replies.try_recv() {
                Ok((id, Reply::Failed(failure))) => Err(failure.into_error(self.rank_of(id))),
                _ => Err(ended(self.rank_of(id))),
            },
        }
    }

    /// The next reply of any rank.
    pub(super) fn reply(&mut self) -> Result<(usize, Reply), PipelineError> {
        match self.replies.recv() {
            Ok((id, Reply::Failed(failure))) => {
                let error = self.first_cause(id, failure);
                let group = &self.connections.group;
                // If another process is gone, the ranks here fail only because links to it or sums over replicas end.
                if let Some(cause) = group.failure() {
                    return Err(PipelineError::Group(cause));
                }
                // Ends the sums that ranks here and other processes may wait for.
                group.abort(&format!("has failed: {error}"));
                Err(error)
            }
            Ok(reply) => Ok(reply),
            Err(_) => Err(ended(RankId(0))),
        }
    }

    /// The error for a reply that the coordinator did not ask for.
    pub(super) fn out_of_turn(&self, id: usize) -> PipelineError {
        out_of_turn(self.rank_of(id))
    }

    /// The pipeline rank of a worker.
    fn rank_of(&self, id: usize) -> RankId {
        self.positions[id].rank
    }

    /// A rank that fails takes its neighbours with it, and a neighbour may answer first: looks for the failure that is not merely
    /// a lost neighbour. No rank of this process has such a failure if another process is the cause.
    fn first_cause(&self, id: usize, failure: Failure) -> PipelineError {
        let mut cause = (id, failure);
        let begin = Instant::now();
        while cause.1.is_of_another()
            && self.connections.group.failure().is_none()
            && begin.elapsed() < CAUSE_PATIENCE
        {
            match self.replies.recv_timeout(LOOK) {
                Ok((id, Reply::Failed(failure))) => cause = (id, failure),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let (id, failure) = cause;
        failure.into_error(self.rank_of(id))
    }
}
