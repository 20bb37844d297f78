//! The traits of an executor.
//!
//! | trait | implemented by |
//! |---|---|
//! | [`Stage`] | one model chunk: with tensors in training, with durations only in the emulator |
//! | [`RankHost`] | one pipeline rank: its chunks, its clock, its optimiser step |
//! | [`Link`] | a transport between ranks: channels, device copies, sockets, virtual links |
//! | [`Executor`] | a whole pipeline: a [`Plan`] in, a [`Trace`] out |

use std::task::Poll;

use super::{ExecError, LinkError, Message, StageError, Trace};
use crate::cost::Strategy;
use crate::plan::{PairKey, Plan};
use crate::spec::{Seconds, SegmentId, TaskId};

/// One call of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageCall {
    /// The task of the plan.
    pub task: TaskId,
    /// Chunk, microbatch and sub-microbatch of the call.
    pub pair: PairKey,
    /// The memory strategy of the pair.
    pub strategy: Strategy,
    /// True if the pair has a weight task. Its backward then computes input gradients only.
    pub split: bool,
    /// The stage pairs that receive the outputs, one per output.
    pub consumers: Vec<PairKey>,
}

/// A payload with the stage pair that produced it.
#[derive(Debug, Clone, PartialEq)]
pub struct Received<P> {
    /// The producer.
    pub from: PairKey,
    /// Activations for a forward, gradients for a backward.
    pub payload: P,
}

/// Forward and backward of one model chunk.
///
/// The interpreter calls the tasks of a stage pair in the order forward, backward, weight, each once. Calls of different
/// pairs interleave in any order. A stage keeps what its backward needs between the calls and frees it after the last one.
pub trait Stage {
    /// The data that stages exchange.
    type Payload;

    /// Runs the forward of one sub-microbatch. Takes the outputs of upstream chunks and returns one payload for each of
    /// `call.consumers`, in their order.
    ///
    /// # Errors
    /// [`StageError`] if inputs are missing or a computation fails.
    fn forward(
        &mut self,
        call: &StageCall,
        inputs: Vec<Received<Self::Payload>>,
    ) -> Result<Vec<Self::Payload>, StageError>;

    /// Runs the backward. Takes the gradients from downstream chunks and returns one payload for each of `call.consumers`
    /// (upstream), in their order.
    ///
    /// # Errors
    /// [`StageError`] if the forward has not run or a computation fails.
    fn backward(
        &mut self,
        call: &StageCall,
        gradients: Vec<Received<Self::Payload>>,
    ) -> Result<Vec<Self::Payload>, StageError>;

    /// Computes the weight gradients of a split backward.
    ///
    /// # Errors
    /// [`StageError::Unsupported`] by default, for stages that cannot split their backward.
    fn weight(&mut self, call: &StageCall) -> Result<(), StageError> {
        Err(StageError::Unsupported { task: call.task, what: "split weight gradients".into() })
    }
}

/// One pipeline rank as the interpreter sees it.
pub trait RankHost {
    /// The data that stages exchange.
    type Payload;

    /// Time since the start of the iteration. It never decreases.
    fn now(&self) -> Seconds;

    /// The chunk of a module and segment on this rank, or `None` if the rank does not hold it.
    fn stage(
        &mut self,
        module: &str,
        segment: SegmentId,
    ) -> Option<&mut dyn Stage<Payload = Self::Payload>>;

    /// Ends the iteration: reduces and clips gradients, then updates weights. Called once, after all stages and sends of
    /// the rank.
    ///
    /// # Errors
    /// [`StageError`] if a computation fails or another rank is gone.
    fn step(&mut self) -> Result<(), StageError>;
}

/// Moves payloads between ranks.
///
/// `isend` and `irecv` return without waiting. A link delivers each message once. Messages may be received in another order
/// than they were sent.
pub trait Link {
    /// The data that stages exchange.
    type Payload;

    /// Starts sending.
    ///
    /// # Errors
    /// [`LinkError`] if the peer is gone.
    fn isend(&mut self, message: &Message, payload: Self::Payload) -> Result<(), LinkError>;

    /// Announces a receive, so that the link can prepare for it.
    ///
    /// # Errors
    /// [`LinkError`] if the peer is gone.
    fn irecv(&mut self, message: &Message) -> Result<(), LinkError>;

    /// Completes a send. A link in real time blocks; a link in virtual time may return [`Poll::Pending`].
    ///
    /// # Errors
    /// [`LinkError`] if the peer is gone.
    fn wait_isend(&mut self, message: &Message) -> Result<Poll<()>, LinkError>;

    /// Receives a message if it has arrived. Never waits.
    ///
    /// # Errors
    /// [`LinkError`] if the peer is gone and the message will not arrive.
    fn try_irecv(&mut self, message: &Message) -> Result<Poll<Self::Payload>, LinkError>;

    /// Waits until one of `messages` has arrived. A link in virtual time returns at once.
    ///
    /// # Errors
    /// [`LinkError`] if a peer is gone whose message will not arrive.
    fn wait_any(&mut self, messages: &[Message]) -> Result<(), LinkError>;
}

/// Runs whole plans: in virtual time, or on a training pipeline that is bound to a batch.
///
/// The trace of a successful run passes [`Trace::check`]: it has every task of the plan once, on its rank, in the planned order
/// or within its window, and after the tasks it depends on.
pub trait Executor {
    /// Runs one iteration and returns the start and end of every stage.
    ///
    /// # Errors
    /// [`ExecError`] of the rank that failed first.
    fn execute(&mut self, plan: &Plan) -> Result<Trace, ExecError>;
}
