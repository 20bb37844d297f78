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

use super::outgoing::{Open, Outgoing, Sends};
use super::pace::Pace;
use super::watch::{SILENCE, Watch};
use super::{FAILURE, HEARTBEAT, LEFT, Shared};
use crate::runtime::group::quoted;
use crate::runtime::transport::Router;

/// Longest piece of a message, in bytes.
const PIECE_BYTES: usize = 512 << 10;
/// Bytes of messages after which no new ones are sent until these have left, so that their memory is freed.
const ROUND_BYTES: usize = 64 << 20;
/// Pieces that are on their way to a process at once. Signs of life wait behind no more than these.
const LANE_PIECES: usize = 4;
/// Bytes of pieces that are received at once; one more piece may begin below it.
const BATCH_BYTES: usize = 1 << 20;
/// Pieces that are received at once.
const BATCH_PIECES: usize = 16;
/// Messages of up to so many bytes arrive whole.
const SHORT_BYTES: usize = 2048;
/// Longest failure, in bytes.
const SIGN_BYTES: usize = 4 * super::MAX_ERROR;
/// Longest name of a machine, in bytes.
const HOST_BYTES: usize = 64;
/// How long a process may take to end after a failure before it ends all others with it.
const GRACE: Duration = Duration::from_secs(2);
/// Exit code of processes that are ended together.
const EXIT_CODE: i32 = 2;

/// Process, channel, and whether more of the message follows.
type Head = (usize, u32, bool);

/// What the sends of a turn have come to.
struct Turn {
    is_sending: bool,
    /// True if nothing more is to be sent in this round.
    is_done: bool,
}

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
        let mut sends = Sends::default();
        loop {
            self.receive_batch(|thread| {
                while let Some(outgoing) = thread.next_outgoing(sends.bytes < ROUND_BYTES) {
                    thread.begin(outgoing, messages, scope, &mut sends);
                }
                thread.advance(&mut sends, scope);
                if sends.is_empty() {
                    for told in thread.told.drain(..) {
                        // Whoever has waited too long is gone.
                        let _ = told.send(());
                    }
                }
                let is_done = sends.is_empty() && (!messages.is_empty() || thread.is_over);
                Turn { is_sending: !sends.is_empty(), is_done }
            });
            if sends.is_empty() && (!messages.is_empty() || self.is_over) {
                return;
            }
        }
    }

    /// What another thread wants next, if anything. Without room for messages only what is urgent.
    fn next_outgoing(&mut self, has_room: bool) -> Option<Outgoing> {
        loop {
            match self.inbox.try_recv() {
                Ok(outgoing) => self.waiting.push_back(outgoing),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    if !self.is_over && self.waiting.is_empty() {
                        self.waiting.push_back(Outgoing::End);
                    }
                    break;
                }
            }
        }
        if has_room {
            return self.waiting.pop_front();
        }
        let urgent = self.waiting.iter().position(Outgoing::is_urgent)?;
        self.waiting.remove(urgent)
    }

    /// Begins what another thread wants.
    fn begin<'a, 's>(
        &mut self,
        outgoing: Outgoing,
        messages: &'a FrozenVec<Vec<u8>>,
        scope: &'s LocalScope<'a>,
        sends: &mut Sends<'a, 's>,
    ) {
        self.pace.hurry();
        let is_urgent = outgoing.is_urgent();
        let (to, channel, bytes) = match outgoing {
            Outgoing::Message { to, channel, bytes } => (to, channel, bytes),
            Outgoing::Failure(error) => {
                let error = quoted(&error, super::MAX_ERROR);
                (self.shared.others().collect(), FAILURE, error.into())
            }
            Outgoing::Leave { error, told } => {
                self.has_left = true;
                self.told.push(told);
                let channel = if error.is_some() { FAILURE } else { LEFT };
                let text = error.unwrap_or_default();
                (self.shared.others().collect(), channel, text.into())
            }
            Outgoing::Wake => return,
            Outgoing::End => {
                self.is_over = true;
                return;
            }
        };
        sends.bytes += bytes.len() * to.len();
        let bytes: &'a [u8] = messages.push_get(bytes);
        for process in to {
            // In their order, unless others wait before it.
            if is_urgent {
                sends.urgent.push(self.send(process, tag(channel, false), bytes, scope));
                continue;
            }
            let lane = sends.lanes.entry(process).or_default();
            let pieces = bytes.len().div_ceil(PIECE_BYTES).max(1);
            for k in 0..pieces {
                let end = ((k + 1) * PIECE_BYTES).min(bytes.len());
                lane.next.push_back((tag(channel, k + 1 < pieces), &bytes[k * PIECE_BYTES..end]));
            }
        }
        self.advance(sends, scope);
    }

    fn send<'a, 's>(
        &self,
        to: usize,
        tag: i32,
        piece: &'a [u8],
        scope: &'s LocalScope<'a>,
    ) -> Request<'a, [u8], &'s LocalScope<'a>> {
        self.world.process_at_rank(to as i32).immediate_send_with_tag(scope, piece, tag)
    }

    /// Drops sends that have ended, and begins the next ones.
    fn advance<'a, 's>(&mut self, sends: &mut Sends<'a, 's>, scope: &'s LocalScope<'a>) {
        self.complete(&mut sends.urgent);
        for (&process, lane) in &mut sends.lanes {
            self.complete(&mut lane.open);
            while lane.open.len() < LANE_PIECES
                && let Some((tag, piece)) = lane.next.pop_front()
            {
                lane.open.push(self.send(process, tag, piece, scope));
            }
        }
        sends.lanes.retain(|_, lane| !lane.open.is_empty());
    }

    /// Drops sends or receives that have ended.
    fn complete(&mut self, requests: &mut Open<'_, '_>) {
        let before = requests.len();
        let open = std::mem::take(requests).into_iter().filter_map(|open| open.test().err());
        *requests = open.collect();
        if requests.len() < before {
            self.pace.hurry();
        }
    }

    /// Receives pieces until none is under way; their number is bounded. Sends and keeps watch meanwhile: a piece may take long.
    fn receive_batch(&mut self, mut send: impl FnMut(&mut Self) -> Turn) {
        let mut buffers = vec![Vec::new(); BATCH_PIECES];
        let mut heads: Vec<Head> = Vec::new();
        let mut free = buffers.iter_mut();
        scope(|scope| {
            let mut open: Open<'_, '_> = Vec::new();
            let mut bytes = 0;
            loop {
                let turn = send(self);
                while bytes < BATCH_BYTES
                    && heads.len() < BATCH_PIECES
                    && let Some((message, status)) =
                        self.world.any_process().immediate_matched_probe()
                {
                    self.pace.hurry();
                    let Some((message, head, length)) = self.accept(message, &status, &heads)
                    else {
                        continue;
                    };
                    let buffer = free.next().expect("there is one for each piece");
                    buffer.resize(length, 0);
                    open.push(message.immediate_matched_receive_into(scope, &mut buffer[..]));
                    heads.push(head);
                    bytes += length;
                }
                self.receive_signs();
                self.complete(&mut open);
                self.keep_watch();
                if open.is_empty() && (!heads.is_empty() || turn.is_done) {
                    return;
                }
                self.rest(turn.is_sending || !open.is_empty());
            }
        });
        for (head, bytes) in heads.into_iter().zip(buffers) {
            self.handle(head, bytes);
        }
    }

    /// Takes signs of life and failures, which do not wait for the pieces before them.
    fn receive_signs(&mut self) {
        for channel in [HEARTBEAT, FAILURE] {
            let tag = tag(channel, false);
            while let Some((message, status)) =
                self.world.any_process().immediate_matched_probe_with_tag(tag)
            {
                // They are not kept back for those of their process that are under way.
                let taken = self.accept(message, &status, &[]);
                debug_assert!(taken.is_none(), "signs are short");
            }
        }
    }

    /// Looks at a piece that has arrived. A short one is received at once, unless its process has pieces under way, which come
    /// first. Others are returned with their lengths.
    fn accept(
        &mut self,
        message: Message,
        status: &Status,
        before: &[Head],
    ) -> Option<(Message, Head, usize)> {
        let head = parts(status);
        let (from, channel, _) = head;
        let length = status.count(u8::equivalent_datatype()) as usize;
        self.watch.hear(from, Instant::now());
        let is_sign = channel == HEARTBEAT || channel == FAILURE;
        let is_free = is_sign || before.iter().all(|(process, ..)| *process != from);
        if length > PIECE_BYTES || (is_sign && length > SIGN_BYTES) {
            self.fail(from, &format!("has sent a piece of {length} bytes on channel {channel}"));
            // Received and dropped, because MPI keeps what nobody takes.
            self.take(message, &mut vec![0; length.min(i32::MAX as usize)], from);
            return None;
        }
        if is_free && (is_sign || length <= SHORT_BYTES) {
            let mut bytes = vec![0; length];
            self.take(message, &mut bytes, from);
            self.handle(head, bytes);
            return None;
        }
        Some((message, head, length))
    }

    /// Adds a piece to its message, and hands over a message that is whole.
    fn handle(&mut self, (from, channel, has_more): Head, piece: Vec<u8>) {
        self.watch.hear(from, Instant::now());
        match channel {
            HEARTBEAT => return,
            FAILURE => {
                let error = quoted(&String::from_utf8_lossy(&piece), super::MAX_ERROR);
                self.watch.forget(from);
                let failure = self.shared.gone(from, &format!("has ended: {error}"));
                self.shared.router.fail(failure, self.shared.hosts.len());
                return;
            }
            _ => {}
        }
        let limit = self.shared.router.limit(channel);
        let mut bytes = std::mem::take(&mut self.partial[from]);
        if bytes.len() + piece.len() > limit {
            let what = format!("has sent more than {limit} bytes on channel {channel}");
            return self.fail(from, &what);
        }
        match bytes.is_empty() {
            true => bytes = piece,
            false => bytes.extend(piece),
        }
        if has_more {
            self.partial[from] = bytes;
        } else if channel == LEFT {
            self.left += 1;
            self.watch.forget(from);
            self.shared.router.left(from);
        } else if let Err(what) = self.shared.router.deliver(from, channel, bytes) {
            self.fail(from, &what);
        }
    }

    /// Waits for a short message. Its process may stop in the middle of it.
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
    fn rest(&mut self, is_under_way: bool) {
        let is_waited_for = is_under_way || self.shared.waiting.load(Ordering::Relaxed) > 0;
        // Messages that wait for room are no reason to look again at once.
        if self.waiting.iter().any(Outgoing::is_urgent) {
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
            // Neighbours may have ended already; those that have not still want signs of life.
            let messages = FrozenVec::new();
            scope(|scope| self.say_and_wait(&messages, scope));
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn say_and_wait<'a>(&mut self, messages: &'a FrozenVec<Vec<u8>>, scope: &LocalScope<'a>) {
        let mut sends = Sends::default();
        let begin = Instant::now();
        let mut is_empty = false;
        while !is_empty {
            self.receive_batch(|thread| {
                while let Some(outgoing) = thread.next_outgoing(true) {
                    thread.begin(outgoing, messages, scope, &mut sends);
                }
                thread.advance(&mut sends, scope);
                is_empty = sends.is_empty();
                if begin.elapsed() > 2 * SILENCE {
                    thread.world.abort(EXIT_CODE);
                }
                Turn { is_sending: !is_empty, is_done: is_empty }
            });
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

fn parts(status: &Status) -> Head {
    let tag = status.tag();
    (status.source_rank() as usize, (tag / 2) as u32, tag % 2 == 1)
}
