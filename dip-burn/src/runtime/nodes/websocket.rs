//! Nodes over the websockets of burn-communication, Burn's own layer for distributed training.
//!
//! Every node serves a port, and opens a connection to each of the others that it only sends on; what it receives comes on those
//! that the others have opened. A node that ends closes its connections, and one that hangs or loses its network goes silent: both
//! are noticed where they are waited for, within [`NodesConfig::silence`].
//!
//! The traffic is neither encrypted nor authenticated, and the port is open on all interfaces: nodes belong into a private network.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn_communication::websocket::{WsClient, WsClientChannel, WsServer, WsServerChannel};
use burn_communication::{CommunicationChannel, Message, ProtocolClient, ProtocolServer};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::wire::{self, Assembly, Hello, Incoming, PROTOCOL};
use super::{Delivery, NodeError, NodeTransport, Receive};

/// The path that nodes connect to.
const ROUTE: &str = "nodes";
/// Most nodes; each keeps two connections to each other.
const MAX_NODES: usize = 1024;
/// Pause between two attempts to reach a node.
const RETRY: Duration = Duration::from_millis(100);
/// Longest attempt to reach a node.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How long a node that ends waits for what is on its way to the others.
const FLUSH: Duration = Duration::from_secs(30);

/// Which nodes there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodesConfig {
    /// Where each node is, as `host:port`; the same list on all nodes. Ports are opened for IPv4.
    pub addresses: Vec<String>,
    /// The number of this node in that list, from 0.
    pub number: usize,
    /// How long to wait for the others at the start.
    pub patience: Duration,
    /// How long a node may be silent before it is given up; nodes that wait for something else send a sign of life ten times as
    /// often.
    pub silence: Duration,
}

impl NodesConfig {
    /// Waits ten minutes at the start, and gives a node up that is silent for one.
    pub fn new(addresses: Vec<String>, number: usize) -> Self {
        let (patience, silence) = (Duration::from_secs(600), Duration::from_secs(60));
        Self { addresses, number, patience, silence }
    }

    /// The port of this node.
    fn validate(&self) -> Result<u16, NodeError> {
        let start = |field, value, limit: &str, remedy| {
            Err(NodeError::Start { field, value, limit: limit.into(), remedy })
        };
        let shown = self.addresses.join(",");
        if !(2..=MAX_NODES).contains(&self.addresses.len()) {
            let limit = "must name 2 to 1024 nodes";
            return start("--nodes", shown, limit, "give host:port of every node, with commas");
        }
        let mut ports = Vec::new();
        for (i, address) in self.addresses.iter().enumerate() {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            match port.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|&port| port > 0) {
                Some(port) => ports.push(port),
                None => {
                    let limit = "must be host:port";
                    return start("--nodes", address.clone(), limit, "as in 10.0.0.1:29500");
                }
            }
            if self.addresses[..i].contains(address) {
                let limit = "names this node twice";
                return start("--nodes", address.clone(), limit, "give each node its own address");
            }
        }
        match ports.get(self.number) {
            Some(&port) => Ok(port),
            None => {
                let limit = format!("must be 0 to {}", ports.len() - 1);
                let remedy = "give this node's place in --nodes";
                start("--node", self.number.to_string(), &limit, remedy)
            }
        }
    }
}

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
        let mut state = self.inbox.lock();
        state.early.remove(&channel).into_iter().flatten().for_each(&receiver);
        let left = state.peers.iter().enumerate().filter(|(_, peer)| peer.left);
        left.for_each(|(from, _)| receiver(Delivery::Left { from }));
        state.receivers.insert(channel, receiver);
    }

    fn reject(&self, node: usize, what: &str) {
        self.inbox.leave(node, Some(what.to_owned()));
    }

    fn failure(&self) -> Option<NodeError> {
        self.inbox.lock().failure.clone()
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

/// What has come from the other nodes.
struct Inbox {
    number: usize,
    addresses: Vec<String>,
    silence: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    peers: Vec<Peer>,
    receivers: HashMap<u32, Receive>,
    /// What came before anybody listened.
    early: HashMap<u32, Vec<Delivery>>,
    failure: Option<NodeError>,
}

/// How far the connections with a node are.
#[derive(Debug, Clone, Copy, Default)]
struct Peer {
    reached: bool,
    has_come: bool,
    left: bool,
}

impl Inbox {
    fn new(config: &NodesConfig) -> Self {
        let mut peers = vec![Peer::default(); config.addresses.len()];
        peers[config.number] = Peer { reached: true, has_come: true, left: false };
        let (receivers, early) = (HashMap::new(), HashMap::new());
        Self {
            number: config.number,
            addresses: config.addresses.clone(),
            silence: config.silence,
            state: Mutex::new(State { peers, receivers, early, failure: None }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there are connections from and to every node.
    fn wait_for_all(
        &self,
        config: &NodesConfig,
        server_error: impl Fn() -> Option<NodeError>,
    ) -> Result<(), NodeError> {
        let deadline = Instant::now() + config.patience;
        let mut failed = None;
        let mut state = self.lock();
        loop {
            if let Some(error) = state.failure.clone().or_else(&server_error) {
                // The node that differs learns it from the hello of this one.
                let told = match error {
                    NodeError::Differs { node, .. } => state.peers[node].reached,
                    _ => true,
                };
                if told || failed.get_or_insert_with(Instant::now).elapsed() > ATTEMPT {
                    return Err(error);
                }
            }
            let Some(missing) = state.peers.iter().position(|p| !(p.reached && p.has_come)) else {
                return Ok(());
            };
            if Instant::now() >= deadline {
                return Err(NodeError::Start {
                    field: "--nodes",
                    value: config.addresses.join(","),
                    limit: format!(
                        "node {missing} ({}) has not come within {} s",
                        config.addresses[missing],
                        config.patience.as_secs_f64()
                    ),
                    remedy: "start it, or see that both reach each other's port",
                });
            }
            let waited = self.changed.wait_timeout(state, RETRY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The node behind a connection, where it is one of this run that has not come yet.
    fn admit(&self, hello: &[u8]) -> Option<usize> {
        let hello: Hello = serde_json::from_slice(hello).ok()?;
        let mut state = self.lock();
        let peer = *state.peers.get(hello.node)?;
        if hello.protocol != PROTOCOL || peer.has_come {
            return None;
        }
        if hello.addresses != self.addresses {
            let (theirs, ours) = (hello.addresses.join(","), self.addresses.join(","));
            let what = format!("--nodes: it has {theirs}, this node {ours}");
            state.failure.get_or_insert(NodeError::Differs { node: hello.node, what });
            self.changed.notify_all();
            return None;
        }
        state.peers[hello.node].has_come = true;
        self.changed.notify_all();
        Some(hello.node)
    }

    fn reached(&self, node: usize) {
        self.lock().peers[node].reached = true;
        self.changed.notify_all();
    }

    fn deliver(&self, from: usize, channel: u32, bytes: Vec<u8>) {
        let mut state = self.lock();
        let delivery = Delivery::Message { from, bytes };
        match state.receivers.get(&channel) {
            Some(receiver) => receiver(delivery),
            None => state.early.entry(channel).or_default().push(delivery),
        }
    }

    /// Notes the end of a node; only its first account counts.
    fn leave(&self, node: usize, error: Option<String>) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.peers[node].left, true) {
            return;
        }
        if let Some(what) = error {
            let address = self.addresses[node].clone();
            state.failure.get_or_insert(NodeError::Gone { node, address, what });
        }
        state.receivers.values().for_each(|receiver| receiver(Delivery::Left { from: node }));
        self.changed.notify_all();
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
