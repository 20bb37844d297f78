//! Nodes over the websockets of burn-communication, Burn's own layer for distributed training.
//!
//! Every node serves a port, and opens a connection to each of the others that it only sends on; what it receives comes on those
//! that the others have opened. A node that ends closes its connections, and one that hangs or loses its network goes silent: both
//! are noticed where they are waited for, within [`NodesConfig::silence`].
//!
//! The traffic is neither encrypted nor authenticated, and the port is open on all interfaces: nodes belong into a private network.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn_communication::websocket::{WsClient, WsClientChannel, WsServer, WsServerChannel};
use burn_communication::{CommunicationChannel, Message, ProtocolClient, ProtocolServer};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::inbox::Inbox;
use super::wire::{self, Assembly, Hello, Incoming, PROTOCOL};
use super::{NodeError, NodeTransport, NodesConfig, Receive};

/// The path that nodes connect to.
const ROUTE: &str = "nodes";
/// Pause between two attempts to reach a node.
const RETRY: Duration = Duration::from_millis(100);
/// Longest attempt to reach a node.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How long a node that ends waits for what is on its way to the others.
const FLUSH: Duration = Duration::from_secs(30);

/// The connections of one node to all others.
pub struct WebSocketTransport {
    inbox: Arc<Inbox>,
    /// None for this node.
    outboxes: Vec<Option<UnboundedSender<Outgoing>>>,
    senders: Mutex<Vec<JoinHandle<()>>>,
    /// None once dropped.
    runtime: Option<Runtime>,
}

/// What a node sends to another.
enum Outgoing {
    Message { channel: u32, bytes: Vec<u8> },
    Goodbye(String),
}

impl WebSocketTransport {
    /// Opens the port of this node and connects it with all others.
    ///
    /// # Errors
    /// [`NodeError::Start`] where an argument is wrong, the port is taken or a node does not come, and [`NodeError::Differs`]
    /// where one was started with other nodes.
    pub fn connect(config: &NodesConfig) -> Result<Self, NodeError> {
        let port = config.validate()?;
        keep_quiet();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("dip-nodes")
            .enable_all()
            .build()
            .map_err(|e| port_error(port, &e.to_string()))?;
        let inbox = Arc::new(Inbox::new(config));
        let server = WsServer::new(port).route(ROUTE, {
            let inbox = inbox.clone();
            move |channel| receive(inbox, channel)
        });
        let served = runtime.spawn(async move { server.serve(std::future::pending()).await.err() });
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
        inbox.wait_for_all(config, || {
            let ended = served.is_finished();
            ended.then(|| port_error(port, "another process may use it"))
        })?;
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

    fn send(&self, to: usize, channel: u32, bytes: Vec<u8>) {
        if let Some(Some(outbox)) = self.outboxes.get(to) {
            // Where the connection has ended, the receiving side of this node says why.
            let _ = outbox.send(Outgoing::Message { channel, bytes });
        }
    }

    fn listen(&self, channel: u32, receiver: Receive) {
        self.inbox.listen(channel, receiver);
    }

    fn reject(&self, node: usize, what: &str) {
        self.inbox.leave(node, Some(what.to_owned()));
    }

    fn failure(&self) -> Option<NodeError> {
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
        self.leave(None);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Notes the end of a node when the task that receives from it ends, in whatever way.
struct EndOf<'a> {
    inbox: &'a Inbox,
    node: usize,
    error: String,
}

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        let error = Some(std::mem::take(&mut self.error));
        self.inbox.leave(self.node, error.filter(|error| !error.is_empty()));
    }
}

/// Receives from one connection until it ends. Whoever is not a node of this run is not answered.
async fn receive(inbox: Arc<Inbox>, mut channel: WsServerChannel) {
    let Ok(Ok(Some(hello))) = timeout(inbox.silence, channel.recv()).await else { return };
    let Some(node) = inbox.admit(&hello.data) else { return };
    let error = "has closed its connection without a word".into();
    let mut end = EndOf { inbox: &inbox, node, error };
    let mut assembly = Assembly::default();
    loop {
        let frame = match timeout(inbox.silence, channel.recv()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(_) => return,
            Err(_) => {
                end.error = format!("has been silent for {} s", inbox.silence.as_secs_f64());
                return;
            }
        };
        match assembly.take(&frame.data) {
            Ok(Incoming::Nothing) => {}
            Ok(Incoming::Message { channel, bytes }) => inbox.deliver(node, channel, bytes),
            Ok(Incoming::Goodbye(error)) => {
                end.error = match error.as_str() {
                    "" => error,
                    error => format!("has ended: {error}"),
                };
                return;
            }
            Err(what) => {
                end.error = what.into();
                return;
            }
        }
    }
}

/// Connects to a node and sends to it until this one leaves. Where the connection ends before, so does the other direction.
async fn send(
    inbox: Arc<Inbox>,
    to: usize,
    address: String,
    mut outgoing: UnboundedReceiver<Outgoing>,
) {
    let mut channel = reach(&address).await;
    let (node, addresses) = (inbox.number, inbox.addresses.clone());
    let hello = Hello { protocol: PROTOCOL.into(), node, addresses };
    let hello = serde_json::to_vec(&hello).expect("plain data has a JSON form");
    if channel.send(Message::new(hello.into())).await.is_err() {
        return;
    }
    inbox.reached(to);
    loop {
        let sent = match timeout(inbox.silence / 10, outgoing.recv()).await {
            Err(_) => channel.send(Message::new(wire::alive().into())).await.is_ok(),
            Ok(Some(Outgoing::Message { channel: number, bytes })) => {
                send_message(&mut channel, number, &bytes).await
            }
            Ok(Some(Outgoing::Goodbye(error))) => {
                let _ = channel.send(Message::new(wire::goodbye(&error).into())).await;
                let _ = channel.close().await;
                false
            }
            Ok(None) => false,
        };
        if !sent {
            return;
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

/// Tries until the node answers; whoever waits for it gives up in time.
async fn reach(address: &str) -> WsClientChannel {
    loop {
        let address = format!("ws://{address}").parse().expect("an address is any text");
        if let Ok(Some(channel)) = timeout(ATTEMPT, WsClient::connect(address, ROUTE)).await {
            return channel;
        }
        sleep(RETRY).await;
    }
}

fn port_error(port: u16, what: &str) -> NodeError {
    NodeError::Start {
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
