//! Runs plans in virtual time: the same action lists and the same interpreter as in training, over clocks that only count.
//!
//! Ranks advance in the order of their clocks, so that messages enter the links in the order of time. Where links are not
//! contended, every stage runs exactly when dip-core's [`Timeline`](dip_core::Timeline) says.

use std::cell::{Cell, RefCell};
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::task::Poll;

use dip_core::{
    ExecError, Executor, Interpreter, Link, LinkError, Message, Plan, RankHost, RankId,
    RankProgress, Received, Seconds, SegmentId, Stage, StageCall, StageError, TaskGraph, Trace,
    compile,
};

/// What messages do to each other.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum LinkModel {
    /// Nothing: each takes the time that the plan gives it, as the timeline semantics say.
    #[default]
    Uncontended,
    /// A rank sends one message at a time and receives one at a time. A message occupies both ends for the time that the
    /// plan gives it, less the latency; those that find an end occupied wait in the order in which they were sent.
    Ports {
        /// Start-up time of a message, in which it occupies nothing.
        latency: Seconds,
    },
}

/// An executor that computes nothing and advances clocks by the durations of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct VirtualExecutor {
    /// How messages travel.
    pub links: LinkModel,
}

impl VirtualExecutor {
    /// An executor with these links.
    pub fn new(links: LinkModel) -> Self {
        Self { links }
    }
}

impl Executor for VirtualExecutor {
    /// # Panics
    /// When tasks name ranks or dependencies out of range; plans from the loaders do not.
    fn execute(&mut self, plan: &Plan) -> Result<Trace, ExecError> {
        let program = compile(plan);
        let network = Rc::new(RefCell::new(Network::new(&plan.graph, self.links)));
        let mut ranks: Vec<Rank<'_>> = (0..plan.order.len())
            .map(|rank| Rank::new(&program, RankId::from(rank), &plan.graph, &network))
            .collect();
        run(&mut ranks, &network)?;
        let spans = ranks.into_iter().flat_map(|rank| rank.interpreter.into_spans()).collect();
        Ok(Trace { ranks: plan.graph.ranks, spans })
    }
}

/// Advances the rank whose clock is the earliest, one action at a time, until all are done.
fn run(ranks: &mut [Rank<'_>], network: &RefCell<Network<'_>>) -> Result<(), ExecError> {
    let event = |rank: usize, ranks: &[Rank<'_>]| Reverse((Time(ranks[rank].clock.get()), rank));
    let mut events: BinaryHeap<_> = (0..ranks.len()).map(|rank| event(rank, ranks)).collect();
    let mut waiting: HashMap<Message, usize> = HashMap::new();
    while let Some(Reverse((_, rank))) = events.pop() {
        match ranks[rank].advance()? {
            RankProgress::Advanced => events.push(event(rank, ranks)),
            RankProgress::Blocked(message) => {
                waiting.insert(message, rank);
            }
            RankProgress::Done => {}
        }
        let sent = std::mem::take(&mut network.borrow_mut().sent);
        for receiver in sent.iter().filter_map(|message| waiting.remove(message)) {
            events.push(event(receiver, ranks));
        }
    }
    if waiting.is_empty() {
        return Ok(());
    }
    let mut stuck: Vec<_> =
        waiting.into_iter().map(|(message, rank)| (RankId::from(rank), message)).collect();
    stuck.sort_unstable();
    Err(ExecError::Deadlock { stuck })
}

/// A point in time with a total order.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Time(Seconds);

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// All links of the pipeline.
struct Network<'a> {
    graph: &'a TaskGraph,
    model: LinkModel,
    /// When the port of each rank is free again, out and in.
    out_free: Vec<Seconds>,
    in_free: Vec<Seconds>,
    /// When each message that was sent arrives.
    arrival: HashMap<Message, Seconds>,
    /// When the port of its sender is free of it.
    released: HashMap<Message, Seconds>,
    /// Sent since the last look.
    sent: Vec<Message>,
}

impl<'a> Network<'a> {
    fn new(graph: &'a TaskGraph, model: LinkModel) -> Self {
        let ports = vec![Seconds::ZERO; graph.ranks as usize];
        Self {
            graph,
            model,
            out_free: ports.clone(),
            in_free: ports,
            arrival: HashMap::new(),
            released: HashMap::new(),
            sent: Vec::new(),
        }
    }

    fn send(&mut self, message: &Message, now: Seconds) {
        let deps = &self.graph.task(message.consumer).deps;
        let edges = deps.iter().filter(|d| d.task == message.producer);
        let takes = edges.map(|d| d.comm_s).fold(Seconds::ZERO, Seconds::max);
        let (begin, released) = match self.model {
            LinkModel::Uncontended => (now, now),
            LinkModel::Ports { latency } => {
                let (out, inward) = (message.from.index(), message.to.index());
                let begin = now.max(self.out_free[out]).max(self.in_free[inward]);
                let free = begin + Seconds((takes.0 - latency.0).max(0.0));
                self.out_free[out] = free;
                self.in_free[inward] = free;
                (begin, free)
            }
        };
        self.arrival.insert(*message, begin + takes);
        self.released.insert(*message, released);
        self.sent.push(*message);
    }
}

/// One rank with its clock.
struct Rank<'a> {
    interpreter: Interpreter<'a, ()>,
    host: Host<'a>,
    port: Port<'a>,
    clock: Rc<Cell<Seconds>>,
}

impl<'a> Rank<'a> {
    fn new(
        program: &'a dip_core::Program,
        rank: RankId,
        graph: &'a TaskGraph,
        network: &Rc<RefCell<Network<'a>>>,
    ) -> Self {
        let clock = Rc::new(Cell::new(Seconds::ZERO));
        Self {
            interpreter: Interpreter::new(program, rank),
            host: Host { stage: VirtualStage { graph, clock: clock.clone() } },
            port: Port { network: network.clone(), clock: clock.clone() },
            clock,
        }
    }

    fn advance(&mut self) -> Result<RankProgress, ExecError> {
        self.interpreter.advance(&mut self.host, &mut self.port)
    }
}

/// Every chunk of a rank: a stage only takes its time.
struct VirtualStage<'a> {
    graph: &'a TaskGraph,
    clock: Rc<Cell<Seconds>>,
}

impl VirtualStage<'_> {
    fn take(&self, call: &StageCall) {
        let duration = self.graph.task(call.task).duration_s;
        self.clock.set(self.clock.get() + duration);
    }
}

impl Stage for VirtualStage<'_> {
    type Payload = ();

    fn forward(&mut self, call: &StageCall, _: Vec<Received<()>>) -> Result<Vec<()>, StageError> {
        self.take(call);
        Ok(vec![(); call.consumers.len()])
    }

    fn backward(&mut self, call: &StageCall, _: Vec<Received<()>>) -> Result<Vec<()>, StageError> {
        self.take(call);
        Ok(vec![(); call.consumers.len()])
    }

    fn weight(&mut self, call: &StageCall) -> Result<(), StageError> {
        self.take(call);
        Ok(())
    }
}

struct Host<'a> {
    stage: VirtualStage<'a>,
}

impl RankHost for Host<'_> {
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
struct Port<'a> {
    network: Rc<RefCell<Network<'a>>>,
    clock: Rc<Cell<Seconds>>,
}

impl Port<'_> {
    fn wait_until(&self, time: Seconds) {
        self.clock.set(self.clock.get().max(time));
    }
}

impl Link for Port<'_> {
    type Payload = ();

    fn isend(&mut self, message: &Message, (): ()) -> Result<(), LinkError> {
        self.network.borrow_mut().send(message, self.clock.get());
        Ok(())
    }

    fn irecv(&mut self, _: &Message) -> Result<(), LinkError> {
        Ok(())
    }

    fn wait_isend(&mut self, message: &Message) -> Result<Poll<()>, LinkError> {
        let released = self.network.borrow().released.get(message).copied();
        let unsent = || LinkError::Protocol { message: *message, what: "never sent".into() };
        self.wait_until(released.ok_or_else(unsent)?);
        Ok(Poll::Ready(()))
    }

    fn wait_irecv(&mut self, message: &Message) -> Result<Poll<()>, LinkError> {
        let arrival = self.network.borrow_mut().arrival.remove(message);
        Ok(arrival.map_or(Poll::Pending, |time| {
            self.wait_until(time);
            Poll::Ready(())
        }))
    }
}
