//! Execution: a plan is compiled to one action list a rank, and one interpreter runs those lists for every executor.
//!
//! | trait | implemented by |
//! |---|---|
//! | [`Stage`] | one model chunk: with tensors in dip-burn, with virtual time in dip-emu |
//! | [`RankHost`] | one pipeline rank: its chunks, its clock, its optimiser step |
//! | [`Link`] | what moves payloads between ranks: channels, device copies, sockets, virtual links |
//! | [`Executor`] | a whole pipeline: [`Plan`] in, [`Trace`] out |

mod action;
mod compile;
mod interpreter;
#[cfg(test)]
mod tests;
mod trace;

use std::task::Poll;

use thiserror::Error;

use crate::cost::Strategy;
use crate::plan::{PairKey, Plan};
use crate::spec::{RankId, Seconds, SegmentId, TaskId};

pub use action::{Action, Message};
pub use compile::{Program, RankProgram, TaskCall, compile};
pub use interpreter::{Interpreter, RankProgress};
pub use trace::{Span, Trace};

/// One call of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageCall {
    /// The task of the plan.
    pub task: TaskId,
    /// Which chunk, microbatch and sub-microbatch.
    pub pair: PairKey,
    /// The memory strategy of the pair.
    pub strategy: Strategy,
    /// Whether the pair has a weight task: its backward leaves the weight gradients to it.
    pub split: bool,
    /// The stage pairs that the outputs go to, in order.
    pub consumers: Vec<PairKey>,
}

/// A payload with the stage pair that made it.
#[derive(Debug, Clone, PartialEq)]
pub struct Received<P> {
    /// Who made it.
    pub from: PairKey,
    /// What it is: activations for a forward, gradients for a backward.
    pub payload: P,
}

/// Forward and backward of one model chunk, and, where it can, input and weight gradients apart.
///
/// A stage keeps what its backward needs between the two calls, and nothing after the last of them.
pub trait Stage {
    /// What travels between stages.
    type Payload;

    /// Runs the forward of one sub-microbatch: outputs of upstream chunks in, one payload for each of `call.consumers` out.
    ///
    /// # Errors
    /// [`StageError`] where inputs are missing or a computation fails.
    fn forward(
        &mut self,
        call: &StageCall,
        inputs: Vec<Received<Self::Payload>>,
    ) -> Result<Vec<Self::Payload>, StageError>;

    /// Runs the backward: gradients of downstream chunks in, one payload for each of `call.consumers` (upstream) out.
    ///
    /// # Errors
    /// [`StageError`] where the forward has not run or a computation fails.
    fn backward(
        &mut self,
        call: &StageCall,
        gradients: Vec<Received<Self::Payload>>,
    ) -> Result<Vec<Self::Payload>, StageError>;

    /// Computes the weight gradients that a split backward left for later.
    ///
    /// # Errors
    /// [`StageError`]; the default says that the stage cannot split its backward.
    fn weight(&mut self, call: &StageCall) -> Result<(), StageError> {
        Err(StageError::Unsupported { task: call.task, what: "weight gradients apart".into() })
    }
}

/// One pipeline rank as the interpreter sees it.
pub trait RankHost {
    /// What travels between stages.
    type Payload;

    /// Time since the start of the iteration.
    fn now(&self) -> Seconds;

    /// The chunk of a module and segment on this rank.
    fn stage(
        &mut self,
        module: &str,
        segment: SegmentId,
    ) -> Option<&mut dyn Stage<Payload = Self::Payload>>;

    /// Ends the iteration: reduces and clips gradients, updates weights.
    ///
    /// # Errors
    /// [`StageError`] where a computation fails or another rank is gone.
    fn step(&mut self) -> Result<(), StageError>;
}

/// Moves payloads between ranks. `isend` and `irecv` never block.
pub trait Link {
    /// What travels between stages.
    type Payload;

    /// Starts sending.
    ///
    /// # Errors
    /// [`LinkError`] where the peer is gone.
    fn isend(&mut self, message: &Message, payload: Self::Payload) -> Result<(), LinkError>;

    /// Announces that a message will be waited for.
    ///
    /// # Errors
    /// [`LinkError`] where the peer is gone.
    fn irecv(&mut self, message: &Message) -> Result<(), LinkError>;

    /// Completes a send. A link in real time blocks; one in virtual time may answer [`Poll::Pending`].
    ///
    /// # Errors
    /// [`LinkError`] where the peer is gone.
    fn wait_isend(&mut self, message: &Message) -> Result<Poll<()>, LinkError>;

    /// Completes a receive. A link in real time blocks; one in virtual time may answer [`Poll::Pending`].
    ///
    /// # Errors
    /// [`LinkError`] where the peer is gone.
    fn wait_irecv(&mut self, message: &Message) -> Result<Poll<Self::Payload>, LinkError>;
}

/// Runs whole plans.
pub trait Executor {
    /// Runs one iteration and tells when every stage ran.
    ///
    /// # Errors
    /// [`ExecError`] for the first rank that failed.
    fn execute(&mut self, plan: &Plan) -> Result<Trace, ExecError>;
}

/// A stage that could not run.
#[derive(Debug, Error)]
pub enum StageError {
    /// The stage does not support what the plan asks.
    #[error("task {task} asks for {what}, which this stage does not support; plan without it")]
    Unsupported {
        /// The task.
        task: TaskId,
        /// What it asks for.
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
    /// The computation failed.
    #[error("{0}")]
    Failed(String),
}

/// A transfer that failed.
#[derive(Debug, Clone, PartialEq, Error)]
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
    /// No rank can go on.
    #[error("the plan deadlocks: {}; check it with `dip check`", stuck_text(.stuck))]
    Deadlock {
        /// Each rank that waits, and for what.
        stuck: Vec<(RankId, Message)>,
    },
}

fn stuck_text(stuck: &[(RankId, Message)]) -> String {
    let waits: Vec<_> = stuck.iter().map(|(r, m)| format!("rank {r} waits for {m}")).collect();
    waits.join(", ")
}
