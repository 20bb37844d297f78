//! The thread that makes all calls of MPI.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

use elsa::FrozenVec;
use mpi::Threading;
use mpi::environment::Universe;
use mpi::point_to_point::{Message, Status};
use mpi::request::{LocalScope, Request, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Equivalence, Source};

use super::pace::Pace;
use super::watch::{SILENCE, Watch};
use super::{FAILURE, HEARTBEAT, LEFT, Shared};
use crate::runtime::group::quoted;
use crate::runtime::transport::Router;

/// Longest piece of a message, in bytes.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of messages after which no new ones are sent until these have left, so that their memory is freed.
const ROUND_BYTES: usize = 64 << 20;
/// Longest name of a machine, in bytes.
const HOST_BYTES: usize = 64;
/// How long a process may take to end after a failure before it ends all others with it.
const GRACE: Duration = Duration::from_secs(2);
/// Exit code of processes that are ended together.
const EXIT_CODE: i32 = 2;

/// What the other threads of this process want.
pub(super) enum Outgoing {
    /// Send a message.
    Message { to: Vec<usize>, channel: u32, bytes: Vec<u8> },
    /// Tell the others why they cannot continue.
    Failure(String),
    /// Tell the others that this process ends, and answer when they have been told.
    Leave { error: Option<String>, told: Sender<()> },
    /// Look at the network now.
    Wake,
    /// End with the others.
    End,
}

/// Sends that have begun.
type Sends<'a, 's> = Vec<Request<'a, [u8], &'s LocalScope<'a>>>;

/// The state of the thread.
pub(super) struct MpiThread {
    pub shared: Arc<Shared>,
    world: SimpleCommunicator,
    inbox: Receiver<Outgoing>,
    /// Messages that wait for the next round.
    waiting: VecDeque<Outgoing>,
    /// By process: the beginning of a message whose end is missing.
    partial: Vec<Vec<u8>>,
    watch: Watch,
    pace: Pace,
    /// Who waits until the other processes have been told of the end of this one.
    told: Vec<Sender<()>>,
    /// True if this process has told the others of its end.
    has_left: bool,
    /// Processes that have told this one of their end.
    left: usize,
    /// When all other processes had done so, and this one was to end.
    all_have_left: Option<Instant>,
    /// When this process has noticed that the processes cannot continue together.
    failed: Option<Instant>,
    is_over: bool,
}

impl MpiThread {
    /// Starts MPI; `None` if that has happened before, or MPI does not allow other threads beside this one.
    pub fn start(inbox: Receiver<Outgoing>) -> Option<(Self, Universe)> {
        let (universe, provided) = mpi::initialize_with_threading(Threading::Funneled)?;
        if provided < Threading::Funneled {
            return None;
        }
        let world = universe.world();
        let (index, size) = (world.rank() as usize, world.size() as usize);
        let shared = Arc::new(Shared {
            router: Router::default(),
            index,
            hosts: hosts(&world),
            waiting: AtomicUsize::new(0),
        });
        let thread = Self {
            shared,
            world,
            inbox,
            waiting: VecDeque::new(),
            partial: vec![Vec::new(); size],
            watch: Watch::new(index, size),
            pace: Pace::new(),
            told: Vec::new(),
            has_left: false,
            left: 0,
            all_have_left: None,
            failed: None,
            is_over: false,
        };
        Some((thread, universe))
    }

    /// Carries messages until the process ends, and then ends MPI. `agreed` is told before that, when all processes end.
    pub fn run(mut self, universe: Universe, agreed: &Sender<()>) {
        while !self.is_over {
            // Messages keep their memory until all of a round have left.
            let messages = FrozenVec::new();
            scope(|scope| self.round(&messages, scope));
        }
        self.end();
        // Whoever has waited is gone.
        let _ = agreed.send(());
        drop(universe);
    }

    /// Sends and receives until all messages of a round have left.
    fn round<'a>(&mut self, messages: &'a FrozenVec<Vec<u8>>, scope: &LocalScope<'a>) {
        let mut sends: Sends<'a, '_> = Vec::new();
        let mut bytes = 0;
        loop {
            while bytes < ROUND_BYTES
                && let Some(outgoing) = self.next_outgoing()
            {
                bytes += self.begin(outgoing, messages, scope, &mut sends);
            }
            self.complete(&mut sends);
            self.receive_all();
            self.keep_watch();
            if sends.is_empty() {
                for told in self.told.drain(..) {
                    // Whoever has waited too long is gone.
                    let _ = told.send(());
                }
                if !messages.is_empty() || self.is_over {
                    return;
                }
            }
            self.rest(!sends.is_empty());
        }
    }

    /// What another thread wants next, if anything.
    fn next_outgoing(&mut self) -> Option<Outgoing> {
        if let Some(outgoing) = self.waiting.pop_front() {
            return Some(outgoing);
        }
        match self.inbox.try_recv() {
            Ok(outgoing) => Some(outgoing),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => (!self.is_over).then_some(Outgoing::End),
        }
    }

    /// Begins what another thread wants. Returns the bytes that are to be sent.
    fn begin<'a, 's>(
        &mut self,
        outgoing: Outgoing,
        messages: &'a FrozenVec<Vec<u8>>,
        scope: &'s LocalScope<'a>,
        sends: &mut Sends<'a, 's>,
    ) -> usize {
        self.pace.hurry();
        let (to, channel, bytes) = match outgoing {
            Outgoing::Message { to, channel, bytes } => (to, channel, bytes),
            Outgoing::Failure(error) => (self.shared.others().collect(), FAILURE, error.into()),
            Outgoing::Leave { error, told } => {
                self.has_left = true;
                self.told.push(told);
                let channel = if error.is_some() { FAILURE } else { LEFT };
                let text = error.unwrap_or_default();
                (self.shared.others().collect(), channel, text.into())
            }
            Outgoing::Wake => return 0,
            Outgoing::End => {
                self.is_over = true;
                return 0;
            }
        };
        let length = bytes.len();
        let bytes = messages.push_get(bytes);
        for &process in &to {
            let process = self.world.process_at_rank(process as i32);
            let pieces = bytes.len().div_ceil(PIECE_BYTES).max(1);
            for k in 0..pieces {
                let end = ((k + 1) * PIECE_BYTES).min(bytes.len());
                let piece = &bytes[k * PIECE_BYTES..end];
                let tag = tag(channel, k + 1 < pieces);
                sends.push(process.immediate_send_with_tag(scope, piece, tag));
            }
        }
        length * to.len()
    }

    /// Drops sends that have ended.
    fn complete(&mut self, sends: &mut Sends<'_, '_>) {
        let before = sends.len();
        let open = std::mem::take(sends).into_iter().filter_map(|send| send.test().err());
        *sends = open.collect();
        if sends.len() < before {
            self.pace.hurry();
        }
    }

    /// Takes all pieces that have arrived.
    fn receive_all(&mut self) {
        while let Some((message, status)) = self.world.any_process().immediate_matched_probe() {
            self.pace.hurry();
            self.receive(message, status);
        }
    }

    fn receive(&mut self, message: Message, status: Status) {
        let (from, channel, has_more) = parts(&status);
        let length = status.count(u8::equivalent_datatype()) as usize;
        let begin = self.partial[from].len();
        let limit = self.shared.router.limit(channel);
        if length > PIECE_BYTES || begin + length > limit {
            let what = format!("has sent more than {limit} bytes on channel {channel}");
            self.fail(from, &what);
            // Received and dropped, because MPI keeps what nobody takes.
            self.take(message, &mut vec![0; length.min(i32::MAX as usize)], from);
            self.partial[from].clear();
            return;
        }
        let mut bytes = std::mem::take(&mut self.partial[from]);
        bytes.resize(begin + length, 0);
        self.take(message, &mut bytes[begin..], from);
        self.watch.hear(from, Instant::now());
        if has_more {
            self.partial[from] = bytes;
            return;
        }
        match channel {
            HEARTBEAT => {}
            LEFT => {
                self.left += 1;
                self.watch.forget(from);
                self.shared.router.left(from);
            }
            FAILURE => {
                let error = quoted(&String::from_utf8_lossy(&bytes), super::MAX_ERROR);
                self.watch.forget(from);
                let failure = self.shared.gone(from, &format!("has ended: {error}"));
                self.shared.router.fail(failure, self.shared.hosts.len());
            }
            _ => {
                if let Err(what) = self.shared.router.deliver(from, channel, bytes) {
                    self.fail(from, &what);
                }
            }
        }
    }

    /// Waits for the rest of a piece. Its process may stop in the middle of it.
    fn take(&self, message: Message, bytes: &mut [u8], from: usize) {
        let begin = Instant::now();
        scope(|scope| {
            let mut request = message.immediate_matched_receive_into(scope, bytes);
            while let Err(open) = request.test() {
                request = open;
                if begin.elapsed() > 2 * SILENCE {
                    eprintln!("error: {}", self.shared.gone(from, "has stopped in a message"));
                    self.world.abort(EXIT_CODE);
                }
                std::thread::yield_now();
            }
        });
    }

    /// Gives signs of life, and looks for those of the neighbours.
    fn keep_watch(&mut self) {
        let now = Instant::now();
        if self.watch.is_due(now) {
            let (to, bytes) = (self.watch.neighbours(), Vec::new());
            self.waiting.push_back(Outgoing::Message { to, channel: HEARTBEAT, bytes });
        }
        if let Some(process) = self.watch.silent(now) {
            self.watch.forget(process);
            let seconds = SILENCE.as_secs();
            self.fail(process, &format!("has been silent for {seconds} seconds: it was stopped, or cut off from the network"));
        }
        if self.failed.is_none() && self.shared.router.failure().is_some() {
            self.failed = Some(now);
        }
        // Ranks that compute, or messages to a process that is stopped, would keep this process alive.
        if self.failed.is_some_and(|failed| now - failed > GRACE) {
            self.abort();
        }
        // Those that have told their end do no more than end.
        if self.is_over && self.left + 1 == self.shared.hosts.len() {
            let since = *self.all_have_left.get_or_insert(now);
            if now - since > 2 * SILENCE {
                eprintln!("error: another process was stopped or cut off at its end");
                self.world.abort(EXIT_CODE);
            }
        }
    }

    fn fail(&mut self, process: usize, what: &str) {
        let failure = self.shared.gone(process, what);
        if self.shared.router.fail(failure.clone(), self.shared.hosts.len()) {
            self.waiting.push_back(Outgoing::Failure(failure.to_string()));
        }
    }

    /// Sleeps until it is time to look again, or another thread wants something.
    fn rest(&mut self, is_sending: bool) {
        let is_waited_for = is_sending || self.shared.waiting.load(Ordering::Relaxed) > 0;
        if !self.waiting.is_empty() {
            return;
        }
        let Some(pause) = self.pace.pause(is_waited_for) else {
            return std::thread::yield_now();
        };
        match self.inbox.recv_timeout(pause) {
            Ok(outgoing) => self.waiting.push_back(outgoing),
            Err(RecvTimeoutError::Timeout) => {}
            // Nobody wants anything any more; the end has been asked for.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(pause),
        }
    }

    /// Waits for the other processes to end. After a failure, a process that does not end is ended with all others.
    fn end(mut self) {
        let mut barrier = self.world.immediate_barrier();
        while let Err(open) = barrier.test() {
            barrier = open;
            self.receive_all();
            // Neighbours may have ended already; those that have not still want signs of life.
            let messages = FrozenVec::new();
            scope(|scope| self.say_and_wait(&messages, scope));
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn say_and_wait<'a>(&mut self, messages: &'a FrozenVec<Vec<u8>>, scope: &LocalScope<'a>) {
        let mut sends: Sends<'a, '_> = Vec::new();
        self.keep_watch();
        while let Some(outgoing) = self.waiting.pop_front() {
            self.begin(outgoing, messages, scope, &mut sends);
        }
        let begin = Instant::now();
        while !sends.is_empty() {
            self.complete(&mut sends);
            self.receive_all();
            if begin.elapsed() > 2 * SILENCE {
                self.world.abort(EXIT_CODE);
            }
        }
    }

    fn abort(&self) -> ! {
        // A process that has left has shown its error.
        if let Some(failure) = self.shared.router.failure().filter(|_| !self.has_left) {
            eprintln!("error: {failure}");
        }
        self.world.abort(EXIT_CODE)
    }
}

/// The names of the machines of all processes.
fn hosts(world: &SimpleCommunicator) -> Vec<String> {
    let name = mpi::environment::processor_name().unwrap_or_default();
    let mut own = [0u8; HOST_BYTES];
    own.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
    let mut all = vec![0u8; HOST_BYTES * world.size() as usize];
    world.all_gather_into(&own[..], &mut all[..]);
    let text = |name: &[u8]| {
        let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        quoted(&String::from_utf8_lossy(&name[..length]), HOST_BYTES)
    };
    all.chunks(HOST_BYTES).map(text).collect()
}

/// The tag of a piece.
fn tag(channel: u32, has_more: bool) -> i32 {
    2 * channel as i32 + i32::from(has_more)
}

/// Process, channel, and whether more of the message follows.
fn parts(status: &Status) -> (usize, u32, bool) {
    let tag = status.tag();
    (status.source_rank() as usize, (tag / 2) as u32, tag % 2 == 1)
}
