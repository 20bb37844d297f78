//! Nodes over the websockets of burn-communication, Burn's own layer for distributed training.
//!
//! Every node serves a port, and opens a connection to each of the others that it only sends on; what it receives comes on those
//! that the others have opened. Until all are there, a connection that is refused or lost is opened again; then the port is
//! closed, and whoever is lost ends the run. A node that ends closes its connections, and one that is frozen or loses its network
//! goes silent: both are noticed where they are waited for, within [`NodesConfig::silence`]. Signs of life have a thread of their
//! own: a node that only computes without end is not noticed.
//!
//! The traffic is neither encrypted nor authenticated: whoever reaches a port and knows the list of nodes can take the place of one
//! before it comes, and whoever is on the way can read and change what is sent. Until all nodes are there the port is open on all
//! interfaces, and a stranger may make a node hold the 64 MiB that the server of burn-communication buffers of a message, a limit
//! that it does not let its users lower; hellos are therefore read eight at a time, which bounds what all strangers together
//! can take. They can also keep nodes from meeting; a run that has begun hears none. Nodes belong into a private network.

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
/// Connections whose hello is read at once: a hello of a stranger may take 64 MiB until it is refused.
const GREETINGS: usize = 8;
/// Longest pause between two signs of life.
const BEAT: Duration = Duration::from_secs(1);
/// How long a node that ends waits for what is on its way to the others.
const FLUSH: Duration = Duration::from_secs(30);

/// The connections of one node to all others.
pub struct WebSocketTransport {
    inbox: Arc<Inbox>,
    /// None for this node.
    outboxes: Vec<Option<UnboundedSender<Outgoing>>>,
    /// None left once this node has said goodbye.
    senders: Mutex<Vec<JoinHandle<()>>>,
    /// None once dropped.
    runtime: Option<Runtime>,
}

/// What a node sends to another.
enum Outgoing {
    Message { channel: u32, bytes: Arc<Vec<u8>> },
    Goodbye(String),
}

impl WebSocketTransport {
    /// Opens the port of this node, connects it with all others, and closes the port.
    ///
    /// # Errors
    /// [`GroupError::Start`] where an argument is wrong, the port is taken or a node does not come, and [`GroupError::Differs`] or
    /// [`GroupError::Refused`] where one was started with other nodes.
    pub fn connect(config: &NodesConfig) -> Result<Self, GroupError> {
        let port = config.validate()?;
        keep_quiet();
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
        // Where the server has failed since, nobody else needs it.
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
            // Where the connection has ended, the receiving side of this node says why.
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
        // Whoever has said goodbye has no senders left, and this goes nowhere.
        self.leave(Some("it has stopped before the end of its run"));
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Takes connections until all nodes are there.
async fn serve(inbox: Arc<Inbox>, port: u16, closed: oneshot::Receiver<()>) {
    let greetings = Arc::new(Semaphore::new(GREETINGS));
    let hellos = greetings.clone();
    let server = WsServer::new(port).route(ROUTE, {
        let inbox = inbox.clone();
        move |channel| receive(inbox, greetings, channel)
    });
    let until = async move {
        drop(closed.await);
        // Connections that are open already are not heard any more, either.
        hellos.close();
    };
    if let Err(error) = server.serve(until).await {
        let what = match error {
            WsServerError::Io(error) => error.to_string(),
            other => format!("{other:?}"),
        };
        inbox.fail(port_error(port, &what));
    }
}

/// Notes the end of a connection when the task that receives from it ends, in whatever way.
struct EndOf<'a> {
    inbox: &'a Inbox,
    node: usize,
    end: End,
}

enum End {
    /// Without a word.
    Lost(String),
    /// With an error, or done.
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

/// Waits for the hello of a connection, and judges it. `None` where it does not come.
async fn admit(
    inbox: &Inbox,
    greetings: &Semaphore,
    channel: &mut WsServerChannel,
) -> Option<Admission> {
    // Nothing is read from a connection that nobody asks for a message.
    let _permit = greetings.acquire().await.ok()?;
    let hello = timeout(ATTEMPT, channel.recv()).await.ok()?.ok()??;
    Some(inbox.admit(&hello.data))
}

/// Receives from one connection until it ends.
async fn receive(inbox: Arc<Inbox>, greetings: Arc<Semaphore>, mut channel: WsServerChannel) {
    let Some(admission) = admit(&inbox, &greetings, &mut channel).await else { return };
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

/// Connects to a node and sends to it until this one leaves. A connection that ends before all nodes are there is opened again;
/// later its end is noticed by the other direction.
async fn send(
    inbox: Arc<Inbox>,
    to: usize,
    address: String,
    mut outgoing: UnboundedReceiver<Outgoing>,
) {
    while let Some(channel) = reach(&inbox, to, &address).await {
        if pass_on(&inbox, to, channel, &mut outgoing).await || !inbox.lost_way_to(to) {
            return;
        }
    }
}

/// Sends what is to be sent, and signs of life; true once this node has said goodbye, and false where the connection has ended.
async fn pass_on(
    inbox: &Inbox,
    to: usize,
    mut channel: WsClientChannel,
    outgoing: &mut UnboundedReceiver<Outgoing>,
) -> bool {
    let beat = BEAT.min(inbox.silence / 10);
    loop {
        let sent = match timeout(beat, outgoing.recv()).await {
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

/// Tries until the node takes this one; whoever waits for it gives up in time. `None` where it never will.
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

/// Opens a connection, and has the node at its end answer.
async fn greet(inbox: &Inbox, address: &str) -> Option<(WsClientChannel, Answer)> {
    let address = format!("ws://{address}").parse().expect("an address is any text");
    let mut channel = WsClient::connect(address, ROUTE).await?;
    channel.send(Message::new(inbox.hello().into())).await.ok()?;
    let answer = channel.recv().await.ok()??;
    let answer = Answer::read(&answer.data)?;
    if let Answer::Welcome { .. } = answer {
        // Until then the other does not know whether anybody still reads its answer.
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

/// burn-communication would print its log on the standard output, unless there is a subscriber.
fn keep_quiet() {
    let _ = tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::new());
}
