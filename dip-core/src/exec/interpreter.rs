//! The interpreter of action lists. Threads drive it in training, virtual time drives it in the emulator.

use std::collections::HashMap;
use std::task::Poll;

use super::{
    Action, ExecError, Link, Message, Program, RankHost, Received, Span, StageError, TaskOutput,
};
use crate::plan::TaskKind;
use crate::spec::{RankId, TaskId};

/// The result of one call of [`Interpreter::advance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankProgress {
    /// One action ran.
    Advanced,
    /// The rank waits for a message. Call again after another rank has advanced.
    Blocked(Message),
    /// All actions have run.
    Done,
}

/// Runs the action list of one rank, one action per call.
pub struct Interpreter<'a, P> {
    program: &'a Program,
    rank: RankId,
    next: usize,
    inbox: HashMap<(TaskId, TaskId), P>,
    outbox: HashMap<(TaskId, TaskId), P>,
    spans: Vec<Span>,
}

impl<'a, P> Interpreter<'a, P> {
    /// Creates an interpreter at the start of the action list of `rank`.
    pub fn new(program: &'a Program, rank: RankId) -> Self {
        Self {
            program,
            rank,
            next: 0,
            inbox: HashMap::new(),
            outbox: HashMap::new(),
            spans: Vec::new(),
        }
    }

    /// Runs all actions over a link that blocks, as training does. Returns the start and end of each stage.
    ///
    /// # Errors
    /// [`ExecError`] for the first action that fails; [`ExecError::Deadlock`] if the link returns [`Poll::Pending`].
    pub fn run<H, L>(mut self, host: &mut H, link: &mut L) -> Result<Vec<Span>, ExecError>
    where
        H: RankHost<Payload = P> + ?Sized,
        L: Link<Payload = P> + ?Sized,
    {
        loop {
            match self.advance(host, link)? {
                RankProgress::Advanced => {}
                RankProgress::Done => return Ok(self.spans),
                RankProgress::Blocked(message) => {
                    return Err(ExecError::Deadlock { stuck: vec![(self.rank, message)] });
                }
            }
        }
    }

    /// Runs the next action.
    ///
    /// # Errors
    /// [`ExecError`] if a stage or a link fails.
    pub fn advance<H, L>(&mut self, host: &mut H, link: &mut L) -> Result<RankProgress, ExecError>
    where
        H: RankHost<Payload = P> + ?Sized,
        L: Link<Payload = P> + ?Sized,
    {
        let Some(&action) = self.program.ranks[self.rank.index()].actions.get(self.next) else {
            return Ok(RankProgress::Done);
        };
        let rank = self.rank;
        let link_error = |source| ExecError::Link { rank, source };
        match action {
            Action::Forward(task) | Action::Backward(task) | Action::Weight(task) => {
                self.run_stage(task, host)?;
            }
            Action::Isend(m) => {
                let payload = self
                    .outbox
                    .remove(&(m.producer, m.consumer))
                    .ok_or_else(|| self.protocol(m.producer, "has not produced its output"))?;
                link.isend(&m, payload).map_err(link_error)?;
            }
            Action::Irecv(m) => link.irecv(&m).map_err(link_error)?,
            Action::WaitIsend(m) => {
                if link.wait_isend(&m).map_err(link_error)?.is_pending() {
                    return Ok(RankProgress::Blocked(m));
                }
            }
            Action::WaitIrecv(m) => match link.wait_irecv(&m).map_err(link_error)? {
                Poll::Pending => return Ok(RankProgress::Blocked(m)),
                Poll::Ready(payload) => {
                    self.inbox.insert((m.producer, m.consumer), payload);
                }
            },
            Action::Step => host.step().map_err(|source| ExecError::Stage { rank, source })?,
        }
        self.next += 1;
        Ok(RankProgress::Advanced)
    }

    /// Returns the start and end of each stage of this rank, in the order of execution.
    pub fn into_spans(self) -> Vec<Span> {
        self.spans
    }

    fn run_stage<H>(&mut self, task: TaskId, host: &mut H) -> Result<(), ExecError>
    where
        H: RankHost<Payload = P> + ?Sized,
    {
        let program = self.program;
        let entry = &program.calls[task.index()];
        let mut inputs = Vec::with_capacity(entry.inputs.len());
        for &producer in &entry.inputs {
            let payload = self
                .inbox
                .remove(&(producer, task))
                .ok_or_else(|| self.protocol(task, "lacks an input"))?;
            let from = program.calls[producer.index()].call.pair.clone();
            inputs.push(Received { from, payload });
        }
        let rank = self.rank;
        let start = host.now();
        let pair = &entry.call.pair;
        let stage = host.stage(&pair.module, pair.segment).ok_or_else(|| ExecError::NoStage {
            rank,
            module: pair.module.to_string(),
            segment: pair.segment,
        })?;
        let outputs = match entry.kind {
            TaskKind::Forward => stage.forward(&entry.call, inputs),
            TaskKind::Backward => stage.backward(&entry.call, inputs),
            TaskKind::Weight => stage.weight(&entry.call).map(|()| Vec::new()),
        }
        .map_err(|source| ExecError::Stage { rank, source })?;
        self.spans.push(Span { task, rank, start, end: host.now() });
        if outputs.len() != entry.outputs.len() {
            return Err(self.protocol(task, "did not return one output per consumer"));
        }
        for (payload, &TaskOutput { consumer, message }) in outputs.into_iter().zip(&entry.outputs)
        {
            let table = if message.is_some() { &mut self.outbox } else { &mut self.inbox };
            table.insert((task, consumer), payload);
        }
        Ok(())
    }

    fn protocol(&self, task: TaskId, what: &str) -> ExecError {
        let source = StageError::Protocol { task, what: what.into() };
        ExecError::Stage { rank: self.rank, source }
    }
}
