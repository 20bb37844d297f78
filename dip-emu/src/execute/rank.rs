//! One rank in virtual time: the interpreter of the trainer over a clock that only counts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Poll;

use dip_core::{
    ExecError, Interpreter, Link, LinkError, Message, Program, RankHost, RankId, RankProgress,
    Received, Seconds, SegmentId, Span, Stage, StageCall, StageError,
};

use super::network::VirtualNetwork;

/// One rank with its clock.
pub struct VirtualRank<'a> {
    interpreter: Interpreter<'a, ()>,
    host: VirtualHost<'a>,
    port: VirtualPort<'a>,
    clock: Rc<Cell<Seconds>>,
}

impl<'a> VirtualRank<'a> {
    pub fn new(
        program: &'a Program,
        rank: RankId,
        durations: &'a [Seconds],
        network: &Rc<RefCell<VirtualNetwork<'a>>>,
    ) -> Self {
        let clock = Rc::new(Cell::new(Seconds::ZERO));
        Self {
            interpreter: Interpreter::new(program, rank),
            host: VirtualHost { stage: VirtualStage { durations, clock: clock.clone() } },
            port: VirtualPort { network: network.clone(), clock: clock.clone() },
            clock,
        }
    }

    /// The time on the clock of the rank.
    pub fn now(&self) -> Seconds {
        self.clock.get()
    }

    /// Moves the clock to `time`, unless it is later.
    pub fn wait_until(&self, time: Seconds) {
        self.clock.set(self.now().max(time));
    }

    /// Runs the next action.
    ///
    /// # Errors
    /// Same as [`Interpreter::advance`].
    pub fn advance(&mut self) -> Result<RankProgress, ExecError> {
        self.interpreter.advance(&mut self.host, &mut self.port)
    }

    /// The spans of the tasks that ran, in the order of execution.
    pub fn into_spans(self) -> Vec<Span> {
        self.interpreter.into_spans()
    }
}

/// The stage of every chunk of a rank: a call only advances the clock.
struct VirtualStage<'a> {
    /// The time of every task.
    durations: &'a [Seconds],
    clock: Rc<Cell<Seconds>>,
}

impl VirtualStage<'_> {
    fn advance_clock(&self, call: &StageCall) {
        self.clock.set(self.clock.get() + self.durations[call.task.index()]);
    }
}

impl Stage for VirtualStage<'_> {
    type Payload = ();

    fn forward(&mut self, call: &StageCall, _: Vec<Received<()>>) -> Result<Vec<()>, StageError> {
        self.advance_clock(call);
        Ok(vec![(); call.consumers.len()])
    }

    fn backward(&mut self, call: &StageCall, _: Vec<Received<()>>) -> Result<Vec<()>, StageError> {
        self.advance_clock(call);
        Ok(vec![(); call.consumers.len()])
    }

    fn weight(&mut self, call: &StageCall) -> Result<(), StageError> {
        self.advance_clock(call);
        Ok(())
    }
}

/// The chunks of a rank and its clock.
struct VirtualHost<'a> {
    stage: VirtualStage<'a>,
}

impl RankHost for VirtualHost<'_> {
    type Payload = ();

    fn now(&self) -> Seconds {
        self.stage.clock.get()
    }

    fn stage(&mut self, _: &str, _: SegmentId) -> Option<&mut dyn Stage<Payload = ()>> {
        Some(&mut self.stage)
    }

    fn step(&mut self) -> Result<(), StageError> {
        Ok(())
    }
}

/// The end of the links at one rank.
struct VirtualPort<'a> {
    network: Rc<RefCell<VirtualNetwork<'a>>>,
    clock: Rc<Cell<Seconds>>,
}

impl VirtualPort<'_> {
    fn wait_until(&self, time: Seconds) {
        self.clock.set(self.clock.get().max(time));
    }
}

impl Link for VirtualPort<'_> {
    type Payload = ();

    fn isend(&mut self, message: &Message, (): ()) -> Result<(), LinkError> {
        self.network.borrow_mut().send(message, self.clock.get());
        Ok(())
    }

    fn irecv(&mut self, _: &Message) -> Result<(), LinkError> {
        Ok(())
    }

    fn wait_isend(&mut self, message: &Message) -> Result<Poll<()>, LinkError> {
        let released = self.network.borrow().released(message);
        let unsent = || LinkError::Protocol { message: *message, what: "never sent".into() };
        self.wait_until(released.ok_or_else(unsent)?);
        Ok(Poll::Ready(()))
    }

    fn try_irecv(&mut self, message: &Message) -> Result<Poll<()>, LinkError> {
        let arrived = self.network.borrow_mut().receive(message, self.clock.get());
        Ok(if arrived { Poll::Ready(()) } else { Poll::Pending })
    }

    /// The executor wakes the rank.
    fn wait_any(&mut self, _: &[Message]) -> Result<(), LinkError> {
        Ok(())
    }
}
