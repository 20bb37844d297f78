//! Errors of stages, links and executors.

use std::error::Error as StdError;

use thiserror::Error;

use super::Message;
use crate::spec::{RankId, SegmentId, TaskId};

/// A stage that could not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StageError {
    /// The stage does not support what the plan requires.
    #[error("task {task} needs {what}, which this stage does not support; plan without it")]
    Unsupported {
        /// The task.
        task: TaskId,
        /// The missing feature.
        what: String,
    },
    /// A stage was called out of turn or with the wrong inputs.
    #[error("task {task}: {what}")]
    Protocol {
        /// The task.
        task: TaskId,
        /// What is wrong.
        what: String,
    },
    /// A part of the run that the rank needs has ended.
    #[error("{peer} is gone; its own error says why")]
    PeerGone {
        /// The missing part, such as "another replica of the rank".
        peer: &'static str,
    },
    /// The computation failed.
    #[error(transparent)]
    Failed(#[from] Box<dyn StdError + Send + Sync>),
}

/// A transfer that failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The other rank is gone.
    #[error("rank {peer} is gone; its own error says why")]
    PeerGone {
        /// The rank.
        peer: RankId,
    },
    /// A message was used out of turn.
    #[error("message {message} was {what}")]
    Protocol {
        /// The message.
        message: Message,
        /// What is wrong.
        what: String,
    },
}

/// A plan that could not be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExecError {
    /// A stage failed.
    #[error("rank {rank}: {source}")]
    Stage {
        /// The rank.
        rank: RankId,
        /// Its error.
        source: StageError,
    },
    /// A link failed.
    #[error("rank {rank}: {source}")]
    Link {
        /// The rank.
        rank: RankId,
        /// Its error.
        source: LinkError,
    },
    /// A rank has no chunk for a task.
    #[error(
        "rank {rank} holds no chunk of module {module:?}, segment {segment}; the plan was made for another partition"
    )]
    NoStage {
        /// The rank.
        rank: RankId,
        /// The module.
        module: String,
        /// The segment.
        segment: SegmentId,
    },
    /// All ranks wait for each other.
    #[error("the plan deadlocks: {}; check it with `dip check`", stuck_text(.stuck))]
    Deadlock {
        /// Each waiting rank with the message it waits for.
        stuck: Vec<(RankId, Message)>,
    },
}

impl ExecError {
    /// True if the rank failed only because another part of the run ended. The error of that part is the cause.
    pub fn is_consequence(&self) -> bool {
        match self {
            Self::Stage { source, .. } => matches!(source, StageError::PeerGone { .. }),
            Self::Link { source, .. } => matches!(source, LinkError::PeerGone { .. }),
            Self::NoStage { .. } | Self::Deadlock { .. } => false,
        }
    }
}

fn stuck_text(stuck: &[(RankId, Message)]) -> String {
    let waits: Vec<_> = stuck.iter().map(|(r, m)| format!("rank {r} waits for {m}")).collect();
    waits.join(", ")
}
