//! The actions of a rank.

use std::fmt;

use crate::spec::{RankId, TaskId};

/// One action. Its text form is that of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `fw_stage`: run a forward.
    Forward(TaskId),
    /// `bw_stage`: run a backward.
    Backward(TaskId),
    /// `w_stage`: run the weight gradients of a split backward.
    Weight(TaskId),
    /// Start sending.
    Isend(Message),
    /// Announce a receive.
    Irecv(Message),
    /// Complete a send.
    WaitIsend(Message),
    /// Complete a receive.
    WaitIrecv(Message),
    /// End the iteration: clip gradients and update weights.
    Step,
}

/// The result of one task on its way to another task. Each edge of the graph sends at most one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    /// The task that produces it.
    pub producer: TaskId,
    /// The task that needs it.
    pub consumer: TaskId,
    /// Rank of the producer.
    pub from: RankId,
    /// Rank of the consumer.
    pub to: RankId,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} -> {}@{}", self.producer, self.from, self.consumer, self.to)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward(task) => write!(f, "fw_stage {task}"),
            Self::Backward(task) => write!(f, "bw_stage {task}"),
            Self::Weight(task) => write!(f, "w_stage {task}"),
            Self::Isend(m) => write!(f, "isend {m}"),
            Self::Irecv(m) => write!(f, "irecv {m}"),
            Self::WaitIsend(m) => write!(f, "wait_isend {m}"),
            Self::WaitIrecv(m) => write!(f, "wait_irecv {m}"),
            Self::Step => write!(f, "step"),
        }
    }
}
