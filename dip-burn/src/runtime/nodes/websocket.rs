//! Nodes over the websockets of burn-communication, Burn's own layer for distributed training.
//!
//! Every node serves a port and opens one connection to each other node. It sends on the connections that it has opened, and
//! receives on the connections that the others have opened. Until all nodes are connected, a refused or lost connection is opened
//! again. Then the port is closed, and a lost connection ends the run. A node that ends closes its connections; a node that is
//! frozen or loses its network goes silent. The nodes that wait for it notice within [`NodesConfig::silence`]. Heartbeats come from
//! a separate thread, so a node that is stuck in a computation is not noticed.
//!
//! The traffic is neither encrypted nor authenticated. Until a node has connected, anyone who reaches a port and knows the list of
//! nodes can take its place, and anyone on the network path can read and change the messages. Until all nodes are connected, the
//! port is open on all interfaces. burn-communication's server buffers up to 64 MiB of a message, and users cannot lower this limit,
//! so a stranger can make a node hold as much. Nodes therefore read at most eight hellos at a time, which bounds the memory that all
//! strangers can take together. Strangers can also keep nodes from connecting, but cannot reach a run that has begun. Nodes belong
//! in a private network.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn_communication::websocket::{
    WsClient, WsClientChannel, WsServer, WsServerChannel, WsServerError,
};
use burn_communication::{CommunicationChannel, Message, ProtocolClient, ProtocolServer};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::inbox::{Admission, Inbox};
use super::wire::{self, Answer, Assembly, Incoming};
use super::{NodeTransport, NodesConfig, Receive};
use crate::runtime::group::GroupError;

/// The path that nodes connect to.
const ROUTE: &str = "nodes";
/// Pause between two attempts to reach a node.
const RETRY: Duration = Duration::from_millis(100);
/// Longest attempt to reach a node.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Most hellos that are read at once: the hello of a stranger may take 64 MiB until it is refused.
const MAX_HELLOS: usize = 8;
/// Longest pause between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Longest time that a node that ends waits until its last messages are sent.
const FLUSH: Duration = Duration::from_secs(30);

/// The connections of one node to all others.
pub struct WebSocketTransport {
    inbox: Arc<Inbox>,
    /// None for this node.
    outboxes: Vec<Option<UnboundedSender<Outgoing>>>,
    /// Empty once this node has said goodbye.
    senders: Mutex<Vec<JoinHandle<()>>>,
    /// None once dropped.
    runtime: Option<Runtime>,
}

/// A message of one node to another.
enum Outgoing {
    Message { channel: u32, bytes: Arc<Vec<u8>> },
    Goodbye(String),
}

impl WebSocketTransport {
    /// Opens the port of this node, connects it with all others, and closes the port.
    ///
    /// # Errors
    /// [`GroupError::Start`] if an argument is wrong, the port is taken or a node does not connect in time.
    /// [`GroupError::Differs`] or [`GroupError::Refused`] if a node was started with another list of nodes.
    pub fn connect(config: &NodesConfig) -> Result<Self, GroupError> {
        let port = config.validate()?;
        silence_logs();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("dip-nodes")
            .enable_all()
            .build()
            .map_err(|e| port_error(port, &e.to_string()))?;
        let inbox = Arc::new(Inbox::new(config));
        let (close, closed) = oneshot::channel();
        runtime.spawn(serve(inbox.clone(), port, closed));
        let (mut outboxes, mut senders) = (Vec::new(), Vec::new());
        for (to, address) in config.addresses.iter().enumerate() {
            if to == config.number {
                outboxes.push(None);
                continue;
            }
            let (outbox, outgoing) = unbounded_channel();
            senders.push(runtime.spawn(send(inbox.clone(), to, address.clone(), outgoing)));
            outboxes.push(Some(outbox));
        }
        inbox.wait_for_all(config.patience)?;
        // If the server has failed by now, all nodes are connected and nobody needs it any more.
        let _ = close.send(());
        Ok(Self { inbox, outboxes, senders: Mutex::new(senders), runtime: Some(runtime) })
    }
}

impl NodeTransport for WebSocketTransport {
    fn number(&self) -> usize {
        self.inbox.number
    }

    fn count(&self) -> usize {
        self.outboxes.len()
    }

    fn address(&self, node: usize) -> String {
        self.inbox.addresses[node].clone()
    }

    fn send(&self, to: &[usize], channel: u32, bytes: Vec<u8>) {
        let bytes = Arc::new(bytes);
        for outbox in to.iter().filter_map(|&to| self.outboxes.get(to)?.as_ref()) {
            // If the connection has ended, the receiving side of this node reports the reason.
            let _ = outbox.send(Outgoing::Message { channel, bytes: bytes.clone() });
        }
    }

    fn allow(&self, channel: u32, most_bytes: usize) {
        self.inbox.allow(channel, most_bytes);
    }

    fn listen(&self, channel: u32, receiver: Receive) {
        self.inbox.listen(channel, receiver);
    }

    fn reject(&self, node: usize, what: &str) {
        self.inbox.leave(node, Some(what.to_owned()));
    }

    fn failure(&self) -> Option<GroupError> {
        self.inbox.failure()
    }

    fn leave(&self, error: Option<&str>) {
        for outbox in self.outboxes.iter().flatten() {
            let _ = outbox.send(Outgoing::Goodbye(error.unwrap_or_default().to_owned()));
        }
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(runtime) = &self.runtime else { return };
        let patience = if self.failure().is_some() { ATTEMPT } else { FLUSH };
        let deadline = Instant::now() + patience;
        for sender in senders.drain(..) {
            let left = deadline.saturating_duration_since(Instant::now());
            let _ = runtime.block_on(async { timeout(left, sender).await });
        }
    }
}

impl Drop for WebSocketTransport {
    fn drop(&mut self) {
        // After a goodbye there are no senders left, and this does nothing.
        self.leave(Some("it has stopped before the end of its run"));
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Accepts connections until all nodes are connected.
async fn serve(inbox: Arc<Inbox>, port: u16, closed: oneshot::Receiver<()>) {
    let hellos = Arc::new(Semaphore::new(MAX_HELLOS));
    let accepting = hellos.clone();
    let server = WsServer::new(port).route(ROUTE, {
        let inbox = inbox.clone();
        move |channel| receive(inbox, hellos, channel)
    });
    let until = async move {
        drop(closed.await);
        // Connections that are already open but not yet admitted are ignored, too.
        accepting.close();
    };
    if let Err(error) = server.serve(until).await {
        let what = match error {
            WsServerError::Io(error) => error.to_string(),
            other => format!("{other:?}"),
        };
        inbox.fail(port_error(port, &what));
    }
}

/// Records the end of a connection when the task that receives from it ends for any reason.
struct EndOf<'a> {
    inbox: &'a Inbox,
    node: usize,
    end: End,
}

enum End {
    /// The connection broke without a goodbye.
    Lost(String),
    /// The node has said goodbye, with an error unless it was done.
    Left(Option<String>),
}

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.end, End::Left(None)) {
            End::Lost(what) => self.inbox.lost(self.node, what),
            End::Left(error) => self.inbox.leave(self.node, error),
        }
    }
}

/// Waits for the hello of a connection, and decides whether to admit it. `None` if no hello comes.
async fn admit(
    inbox: &Inbox,
    hellos: &Semaphore,
    channel: &mut WsServerChannel,
) -> Option<Admission> {
    // The connection is not read before this permit is granted.
    let _permit = hellos.acquire().await.ok()?;
    let hello = timeout(ATTEMPT, channel.recv()).await.ok()?.ok()??;
    Some(inbox.admit(&hello.data))
}

/// Receives from one connection until it ends.
async fn receive(inbox: Arc<Inbox>, hellos: Arc<Semaphore>, mut channel: WsServerChannel) {
    let Some(admission) = admit(&inbox, &hellos, &mut channel).await else { return };
    let node = match admission {
        Admission::Welcome(node) => node,
        Admission::Refused(answer, error) => {
            let answer = Message::new(answer.to_bytes().into());
            let _ = timeout(ATTEMPT, channel.send(answer)).await;
            if let Some(error) = error {
                inbox.fail_to_start(error);
            }
            return;
        }
        Admission::Stranger => return,
    };
    let lost = End::Lost("has closed its connection without a word".into());
    let mut end = EndOf { inbox: &inbox, node, end: lost };
    let welcome = Message::new(inbox.welcome().to_bytes().into());
    if !matches!(timeout(ATTEMPT, channel.send(welcome)).await, Ok(Ok(()))) {
        return;
    }
    let (mut assembly, mut welcomed) = (Assembly::default(), false);
    loop {
        let frame = match timeout(inbox.silence, channel.recv()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(_) => return,
            Err(_) => {
                let silence = inbox.silence.as_secs_f64();
                end.end = End::Lost(format!("has been silent for {silence} s"));
                return;
            }
        };
        if !std::mem::replace(&mut welcomed, true) {
            inbox.welcomed(node);
        }
        let taken = assembly.take(&frame.data, |channel| inbox.most_bytes(channel));
        let delivered = taken.and_then(|incoming| match incoming {
            Incoming::Nothing => Ok(()),
            Incoming::Message { channel, bytes } => inbox.deliver(node, channel, bytes),
            Incoming::Goodbye(error) if error.is_empty() => Err(error),
            Incoming::Goodbye(error) => Err(format!("has ended: {error}")),
        });
        if let Err(what) = delivered {
            end.end = End::Left(Some(what).filter(|what| !what.is_empty()));
            return;
        }
    }
}

/// Connects to a node and sends to it until this node leaves. A connection that ends before all nodes are connected is opened
/// again. Later, the receiving side notices its end.
async fn send(
    inbox: Arc<Inbox>,
    to: usize,
    address: String,
    mut outgoing: UnboundedReceiver<Outgoing>,
) {
    while let Some(channel) = reach(&inbox, to, &address).await {
        if send_all(&inbox, to, channel, &mut outgoing).await || !inbox.lost_connection_to(to) {
            return;
        }
    }
}

/// Sends messages and heartbeats. Returns true once this node has said goodbye, and false if the connection has ended.
async fn send_all(
    inbox: &Inbox,
    to: usize,
    mut channel: WsClientChannel,
    outgoing: &mut UnboundedReceiver<Outgoing>,
) -> bool {
    let pause = HEARTBEAT.min(inbox.silence / 10);
    loop {
        let sent = match timeout(pause, outgoing.recv()).await {
            Err(_) if inbox.is_stale(to) => false,
            Err(_) => channel.send(Message::new(wire::alive().into())).await.is_ok(),
            Ok(Some(Outgoing::Message { channel: number, bytes })) => {
                send_message(&mut channel, number, &bytes).await
            }
            Ok(Some(Outgoing::Goodbye(error))) => {
                let _ = channel.send(Message::new(wire::goodbye(&error).into())).await;
                let _ = channel.close().await;
                return true;
            }
            Ok(None) => return true,
        };
        if !sent {
            return false;
        }
    }
}

async fn send_message(channel: &mut WsClientChannel, number: u32, bytes: &[u8]) -> bool {
    for frame in wire::parts(number, bytes) {
        if channel.send(Message::new(frame.into())).await.is_err() {
            return false;
        }
    }
    true
}

/// Retries until the node admits this node. `None` if it never will. [`Inbox::wait_for_all`] limits the time.
async fn reach(inbox: &Inbox, to: usize, address: &str) -> Option<WsClientChannel> {
    loop {
        match timeout(ATTEMPT, greet(inbox, address)).await {
            Ok(Some((channel, Answer::Welcome { life }))) => {
                inbox.reached(to, life);
                return Some(channel);
            }
            Ok(Some((_, Answer::Later(what)))) => inbox.refused(to, what),
            Ok(Some((_, Answer::Never(what)))) => {
                inbox.fail(GroupError::Refused { node: to, address: address.into(), what });
                return None;
            }
            Ok(None) | Err(_) => {}
        }
        sleep(RETRY).await;
    }
}

/// Opens a connection, says hello and reads the answer.
async fn greet(inbox: &Inbox, address: &str) -> Option<(WsClientChannel, Answer)> {
    let address = format!("ws://{address}").parse().expect("an address is any text");
    let mut channel = WsClient::connect(address, ROUTE).await?;
    channel.send(Message::new(inbox.hello().into())).await.ok()?;
    let answer = channel.recv().await.ok()??;
    let answer = Answer::read(&answer.data)?;
    if let Answer::Welcome { .. } = answer {
        // Tells the other node that its answer has been read.
        channel.send(Message::new(wire::alive().into())).await.ok()?;
    }
    Some((channel, answer))
}

fn port_error(port: u16, what: &str) -> GroupError {
    GroupError::Start {
        field: "--nodes",
        value: format!("port {port}"),
        limit: format!("it cannot be opened: {what}"),
        remedy: "give this node another port",
    }
}

/// Keeps burn-communication from printing its log on the standard output, as it does without a subscriber.
fn silence_logs() {
    let _ = tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::new());
}
