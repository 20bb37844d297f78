//! The interpreter of compiled plans. Threads drive it in training, virtual time drives it in the emulator.
//!
//! A rank runs its tasks in the planned order. With a window above 1 it may run ahead: while the next task of its order waits for a
//! message, the rank runs the first task of the window that is ready, under three conditions. The rank is late, or the task ends
//! before the planned start of the next task. The rest of the order still fits the memory limit. And where memory is tight, the task
//! is a weight gradient: others would change which pairs wait for memory, and delay the ranks behind them.
//!
//! Running ahead cannot deadlock. The rest of every order is always the planned order without the tasks that have run. One
//! sequence of all tasks agrees with all planned orders and dependencies; its first task that has not run is the next task of its
//! rank, and everything it needs has run.

use std::collections::{HashMap, VecDeque};
use std::task::Poll;

use super::{
    ExecError, Link, LinkError, Message, Program, RankHost, Received, Span, StageError, TaskCall,
    TaskOutput,
};
use crate::plan::TaskKind;
use crate::spec::{Bytes, RankId, Seconds, TaskId};

/// Tasks whose receives are announced at least: the next one, and the one after it.
const LEAST_ANNOUNCED: usize = 2;

/// The result of one call of [`Interpreter::advance`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RankProgress {
    /// One action ran.
    Advanced,
    /// The rank waits for one of these messages. Call again when one has arrived.
    Blocked(Vec<Message>),
    /// All actions have run.
    Done,
}

/// Runs the tasks of one rank, one action per call.
pub struct Interpreter<'a, P> {
    program: &'a Program,
    rank: RankId,
    /// Tasks that have not run, in the planned order.
    waiting: VecDeque<TaskId>,
    /// Tasks of the order whose receives are announced.
    announced: usize,
    /// For each task of the program, true if it ran here.
    ran: Vec<bool>,
    live: Bytes,
    inbox: HashMap<(TaskId, TaskId), P>,
    outbox: VecDeque<(Message, P)>,
    /// Sends that are not complete.
    sent: VecDeque<Message>,
    stepped: bool,
    spans: Vec<Span>,
}

impl<'a, P> Interpreter<'a, P> {
    /// Creates an interpreter at the start of the order of `rank`.
    pub fn new(program: &'a Program, rank: RankId) -> Self {
        let own = &program.ranks[rank.index()];
        Self {
            program,
            rank,
            waiting: own.order.iter().copied().collect(),
            announced: 0,
            ran: vec![false; program.calls.len()],
            live: own.static_bytes,
            inbox: HashMap::new(),
            outbox: VecDeque::new(),
            sent: VecDeque::new(),
            stepped: false,
            spans: Vec::new(),
        }
    }

    /// Runs everything over a link that blocks, as training does. Returns the start and end of each stage.
    ///
    /// # Errors
    /// [`ExecError`] for the first action that fails; [`ExecError::Deadlock`] if the link has none of the messages after it has
    /// waited for them.
    pub fn run<H, L>(mut self, host: &mut H, link: &mut L) -> Result<Vec<Span>, ExecError>
    where
        H: RankHost<Payload = P> + ?Sized,
        L: Link<Payload = P> + ?Sized,
    {
        let mut waited_for = Vec::new();
        loop {
            match self.advance(host, link)? {
                RankProgress::Done => return Ok(self.spans),
                RankProgress::Advanced => waited_for.clear(),
                RankProgress::Blocked(messages) if messages == waited_for => {
                    let stuck = messages.into_iter().take(1).map(|m| (self.rank, m)).collect();
                    return Err(ExecError::Deadlock { stuck });
                }
                RankProgress::Blocked(messages) => {
                    link.wait_any(&messages).map_err(|source| self.link_error(source))?;
                    waited_for = messages;
                }
            }
        }
    }

    /// Runs the next action. Never waits.
    ///
    /// # Errors
    /// [`ExecError`] if a stage or a link fails.
    pub fn advance<H, L>(&mut self, host: &mut H, link: &mut L) -> Result<RankProgress, ExecError>
    where
        H: RankHost<Payload = P> + ?Sized,
        L: Link<Payload = P> + ?Sized,
    {
        if let Some((message, payload)) = self.outbox.pop_front() {
            link.isend(&message, payload).map_err(|source| self.link_error(source))?;
            self.sent.push_back(message);
            return Ok(RankProgress::Advanced);
        }
        if !self.waiting.is_empty() {
            self.announce(link)?;
            return match self.choose(host.now(), link)? {
                Some(place) => self.run_stage(place, host).map(|()| RankProgress::Advanced),
                None => Ok(RankProgress::Blocked(self.missing().collect())),
            };
        }
        if let Some(&message) = self.sent.front() {
            if link.wait_isend(&message).map_err(|source| self.link_error(source))?.is_pending() {
                return Ok(RankProgress::Blocked(vec![message]));
            }
            self.sent.pop_front();
            return Ok(RankProgress::Advanced);
        }
        if self.stepped {
            return Ok(RankProgress::Done);
        }
        host.step().map_err(|source| ExecError::Stage { rank: self.rank, source })?;
        self.stepped = true;
        Ok(RankProgress::Advanced)
    }

    /// Returns the start and end of each stage of this rank, in the order of execution.
    pub fn into_spans(self) -> Vec<Span> {
        self.spans
    }

    /// Announces the receives of the tasks of the window.
    fn announce<L>(&mut self, link: &mut L) -> Result<(), ExecError>
    where
        L: Link<Payload = P> + ?Sized,
    {
        let order = &self.program.ranks[self.rank.index()].order;
        let ran = order.len() - self.waiting.len();
        let end = (ran + self.program.window.max(LEAST_ANNOUNCED)).min(order.len());
        for &task in &order[self.announced.min(end)..end] {
            for message in &self.call(task).receives {
                link.irecv(message).map_err(|source| self.link_error(source))?;
            }
        }
        self.announced = self.announced.max(end);
        Ok(())
    }

    /// The place in `waiting` of the task to run now; `None` if the rank must wait.
    fn choose<L>(&mut self, now: Seconds, link: &mut L) -> Result<Option<usize>, ExecError>
    where
        L: Link<Payload = P> + ?Sized,
    {
        for place in 0..self.program.window.min(self.waiting.len()) {
            let task = self.waiting[place];
            if self.is_ready(task, link)? && (place == 0 || self.may_run_ahead(place, now)) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Takes the messages of a task that have arrived. True if it has all its inputs.
    fn is_ready<L>(&mut self, task: TaskId, link: &mut L) -> Result<bool, ExecError>
    where
        L: Link<Payload = P> + ?Sized,
    {
        let call = self.call(task);
        let mut ready = call.local.iter().all(|local| self.ran[local.index()]);
        for message in &call.receives {
            let key = (message.producer, message.consumer);
            if !self.inbox.contains_key(&key) {
                match link.try_irecv(message).map_err(|source| self.link_error(source))? {
                    Poll::Ready(payload) => drop(self.inbox.insert(key, payload)),
                    Poll::Pending => ready = false,
                }
            }
        }
        Ok(ready)
    }

    /// True if the task at `place` may run before the tasks in front of it.
    fn may_run_ahead(&self, place: usize, now: Seconds) -> bool {
        let call = self.call(self.waiting[place]);
        let next = self.call(self.waiting[0]).planned_start;
        let is_tight = self.program.ranks[self.rank.index()].is_tight;
        (now > next || now + call.planned <= next)
            && (!is_tight || call.kind == TaskKind::Weight)
            && self.fits(place)
    }

    /// True if the order stays within the memory limit with the task at `place` in front.
    fn fits(&self, place: usize) -> bool {
        let limit = self.program.ranks[self.rank.index()].memory_limit;
        let mut live = self.live.saturating_add(self.call(self.waiting[place]).takes);
        live <= limit
            && self.waiting.iter().take(place).all(|&task| {
                let call = self.call(task);
                live = live.saturating_add(call.takes);
                let fits = live <= limit;
                live = live.saturating_sub(call.frees);
                fits
            })
    }

    /// The messages that the tasks of the window wait for.
    fn missing(&self) -> impl Iterator<Item = Message> {
        let window = self.waiting.iter().take(self.program.window);
        let receives = window.flat_map(|&task| &self.call(task).receives);
        receives.filter(|m| !self.inbox.contains_key(&(m.producer, m.consumer))).copied()
    }

    fn run_stage<H>(&mut self, place: usize, host: &mut H) -> Result<(), ExecError>
    where
        H: RankHost<Payload = P> + ?Sized,
    {
        let task = self.waiting.remove(place).expect("the place is in the window");
        let entry = self.call(task);
        let mut inputs = Vec::with_capacity(entry.inputs.len());
        for &producer in &entry.inputs {
            let payload = self
                .inbox
                .remove(&(producer, task))
                .ok_or_else(|| self.protocol(task, "lacks an input"))?;
            inputs.push(Received { from: self.call(producer).call.pair.clone(), payload });
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
        self.live = self.live.saturating_add(entry.takes).saturating_sub(entry.frees);
        self.ran[task.index()] = true;
        if outputs.len() != entry.outputs.len() {
            return Err(self.protocol(task, "did not return one output per consumer"));
        }
        for (payload, &TaskOutput { consumer, message }) in outputs.into_iter().zip(&entry.outputs)
        {
            match message {
                Some(message) => self.outbox.push_back((message, payload)),
                None => drop(self.inbox.insert((task, consumer), payload)),
            }
        }
        Ok(())
    }

    fn call(&self, task: TaskId) -> &'a TaskCall {
        &self.program.calls[task.index()]
    }

    fn link_error(&self, source: LinkError) -> ExecError {
        ExecError::Link { rank: self.rank, source }
    }

    fn protocol(&self, task: TaskId, what: &str) -> ExecError {
        let source = StageError::Protocol { task, what: what.into() };
        ExecError::Stage { rank: self.rank, source }
    }
}
