//! Errors of a pipeline and its ranks.

use dip_core::{ExecError, FieldError, RankId};
use thiserror::Error;

use super::group::GroupError;
use super::import::ImportError;
use super::worker::Failure;
use crate::model::ModelError;

/// A pipeline that cannot be built or has failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The model cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A setting names no parameter of the model.
    #[error(transparent)]
    Setting(#[from] FieldError),
    /// The devices do not fit the ranks of this process.
    #[error(
        "this process has {hosted} of the ranks of a partition with {ranks}, but {devices} devices; give one device per rank and replica"
    )]
    Devices {
        /// Ranks of the partition.
        ranks: u32,
        /// Ranks of all replicas that this process hosts.
        hosted: usize,
        /// Devices.
        devices: usize,
    },
    /// The number of plans differs from the number of replicas.
    #[error(
        "there are {given} plans for {replicas} replicas; give one plan and one batch per replica"
    )]
    Replicas {
        /// Plans.
        given: usize,
        /// Replicas.
        replicas: usize,
    },
    /// A thread could not be started.
    #[error("rank {rank} could not be started: {source}")]
    Thread {
        /// The rank.
        rank: RankId,
        /// The system's error.
        source: std::io::Error,
    },
    /// A rank could not be connected with its replicas.
    #[error("rank {rank} could not be connected with its replicas: {source}")]
    Connect {
        /// The rank.
        rank: RankId,
        /// The error of the collective's factory.
        source: std::io::Error,
    },
    /// The ranks of a replica could not be connected.
    #[error("the ranks of replica {replica} could not be connected: {source}")]
    Links {
        /// The replica, counted over all processes.
        replica: usize,
        /// The error of the links' factory.
        source: std::io::Error,
    },
    /// A factory made too few or too many connections.
    #[error("a factory made {given} {what}, but {expected} are needed; correct the factory")]
    Connections {
        /// Name of the connections.
        what: &'static str,
        /// Number of connections made.
        given: usize,
        /// Number of connections needed.
        expected: usize,
    },
    /// Another process.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A stage or a link failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A rank has ended.
    #[error("rank {rank} has ended: {what}")]
    Rank {
        /// The rank.
        rank: RankId,
        /// Why.
        what: String,
    },
    /// Weights or optimiser state do not fit the model.
    #[error("rank {rank}: {source}; the checkpoint was made for another model")]
    Import {
        /// The rank.
        rank: RankId,
        /// What does not fit.
        source: ImportError,
    },
}

impl Failure {
    /// True if a rank failed only because another one did.
    pub(super) fn is_of_another(&self) -> bool {
        match self {
            Self::Exec(error) => error.is_consequence(),
            Self::Panic(_) | Self::Import(_) => false,
        }
    }

    pub(super) fn into_error(self, rank: RankId) -> PipelineError {
        match self {
            Self::Exec(error) => PipelineError::Exec(error),
            Self::Panic(what) => PipelineError::Rank { rank, what },
            Self::Import(source) => PipelineError::Import { rank, source },
        }
    }
}

pub(super) fn ended(rank: RankId) -> PipelineError {
    PipelineError::Rank { rank, what: "its thread is gone".into() }
}

pub(super) fn out_of_turn(rank: RankId) -> PipelineError {
    PipelineError::Rank { rank, what: "it answered out of turn".into() }
}
