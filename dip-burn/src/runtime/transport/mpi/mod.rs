//! The transport of clusters: MPI, which launches the processes, and is tuned for their network.
//!
//! ```text
//! ranks, coordinator --Outgoing--> MPI thread <== messages ==> MPI threads of other processes
//!          ^------------Router----------'
//! ```
//!
//! One thread of each process makes all calls of MPI, because communicators cannot cross threads. It polls, and sleeps in between:
//! briefly while a part of this process waits for a message, longer while all ranks compute.
//!
//! Messages travel in pieces, of which few are under way at once, so that a long one holds back neither the others nor the signs of
//! life. A process receives whatever it sends, and ends a round of sends without regard to its receives, so that no order of messages
//! can deadlock.

mod outgoing;
mod pace;
mod thread;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Receive, Router, Transport};
use crate::runtime::group::{GroupError, quoted};
use outgoing::Outgoing;
use thread::MpiThread;

/// Channel of the error with which a process ends.
const FAILURE: u32 = 12;
/// Channel of the end of a process without an error.
const LEFT: u32 = 13;
/// Channel of signs of life.
const HEARTBEAT: u32 = 14;
/// Longest error that is sent, in characters.
const MAX_ERROR: usize = 2000;
/// How long a process that ends waits until the others have been told.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long MPI may take to connect the processes. A process that is stopped before that cannot be named.
const START: Duration = Duration::from_secs(300);
/// How long MPI may take to end after all processes have agreed to.
const END: Duration = Duration::from_secs(10);

/// The processes that `mpirun` or `srun` has started together.
///
/// Only one can exist in a process. A process that ends calls [`leave`](Transport::leave) first, or runs inside
/// `take_part` of [`ProcessGroup`](crate::runtime::ProcessGroup), which does so: dropped without it, the others are told that this process has failed. When
/// it is dropped, the process waits for the others to end, too; after a failure it waits only briefly, and then ends them all.
pub struct MpiTransport {
    shared: Arc<Shared>,
    outbox: Sender<Outgoing>,
    has_left: AtomicBool,
    /// Answers when all processes have agreed to end.
    agreed: Mutex<Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the MPI thread and the rest of the process share.
struct Shared {
    router: Router,
    index: usize,
    /// The machine of each process.
    hosts: Vec<String>,
    /// Parts of this process that wait for a message.
    waiting: AtomicUsize,
}

impl MpiTransport {
    /// Joins the processes that were started together.
    ///
    /// # Errors
    /// [`GroupError::Start`] if MPI cannot be used.
    pub fn connect() -> Result<Self, GroupError> {
        let start = |value: &str, limit: &str| GroupError::Start {
            field: "MPI",
            value: value.into(),
            limit: limit.into(),
            remedy: "start the processes with mpirun or srun",
        };
        let (outbox, inbox) = channel();
        let (ready, started) = channel();
        let (agreed, ends) = channel();
        let thread = std::thread::Builder::new().name("dip-mpi".into());
        let run = move || {
            let Some((thread, universe)) = MpiThread::start(inbox) else { return };
            if ready.send(thread.shared.clone()).is_ok() {
                thread.run(universe, &agreed);
            }
        };
        let thread = thread.spawn(run).map_err(|e| start(&e.to_string(), "it needs a thread"))?;
        let shared = started.recv_timeout(START).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                start("not ready after 300 s", "all processes must start within 300 s")
            }
            RecvTimeoutError::Disconnected => start(
                "in use",
                "a process joins once, and MPI must allow calls from one of many threads",
            ),
        })?;
        let (has_left, agreed) = (AtomicBool::new(false), Mutex::new(ends));
        Ok(Self { shared, outbox, has_left, agreed, thread: Some(thread) })
    }

    fn tell(&self, outgoing: Outgoing) {
        // Fails only after the thread has ended, when nobody listens any more.
        let _ = self.outbox.send(outgoing);
    }
}

impl Transport for MpiTransport {
    fn index(&self) -> usize {
        self.shared.index
    }

    fn size(&self) -> usize {
        self.shared.hosts.len()
    }

    fn host(&self, process: usize) -> String {
        self.shared.hosts.get(process).cloned().unwrap_or_default()
    }

    fn send(&self, to: &[usize], channel: u32, bytes: Vec<u8>) {
        self.tell(Outgoing::Message { to: to.to_vec(), channel, bytes });
    }

    fn allow(&self, channel: u32, most_bytes: usize) {
        self.shared.router.allow(channel, most_bytes);
    }

    fn listen(&self, channel: u32, receiver: Receive) {
        self.shared.router.listen(channel, receiver);
    }

    fn reject(&self, process: usize, what: &str) {
        let failure = self.shared.gone(process, what);
        if self.shared.router.fail(failure.clone(), self.size()) {
            self.tell(Outgoing::Failure(failure.to_string()));
        }
    }

    fn failure(&self) -> Option<GroupError> {
        self.shared.router.failure()
    }

    fn begin_wait(&self) {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.tell(Outgoing::Wake);
    }

    fn end_wait(&self) {
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    fn leave(&self, error: Option<&str>) {
        self.has_left.store(true, Ordering::Relaxed);
        let (told, others_know) = channel();
        self.tell(Outgoing::Leave { error: error.map(|e| quoted(e, MAX_ERROR)), told });
        let _ = others_know.recv_timeout(FAREWELL);
    }
}

impl Drop for MpiTransport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.leave(Some("it has panicked"));
        } else if !*self.has_left.get_mut() {
            self.leave(Some("it has left the run without saying why"));
        }
        self.tell(Outgoing::End);
        let Some(thread) = self.thread.take() else { return };
        let agreed = self.agreed.get_mut().unwrap_or_else(PoisonError::into_inner);
        if agreed.recv().is_err() {
            return;
        }
        let begin = Instant::now();
        while !thread.is_finished() {
            if begin.elapsed() > END {
                // The launcher ends the process that is missing.
                eprintln!("error: MPI does not end: another process was stopped or cut off");
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Shared {
    fn gone(&self, process: usize, what: &str) -> GroupError {
        let host = self.hosts.get(process).cloned().unwrap_or_default();
        GroupError::Gone { process, host, what: what.into() }
    }

    /// The other processes.
    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.index;
        (0..self.hosts.len()).filter(move |&process| process != own)
    }
}
