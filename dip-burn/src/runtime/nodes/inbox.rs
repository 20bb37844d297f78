//! What has come from the other nodes, and how far the connections with them are.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::wire::{Hello, PROTOCOL};
use super::{Delivery, NodeError, NodesConfig, Receive};

/// Pause between two looks at the server while nodes are waited for.
const LOOK: Duration = Duration::from_millis(100);
/// How long a node that differs is waited for, to tell it.
const TELL: Duration = Duration::from_secs(5);

/// What has come from the other nodes.
pub(super) struct Inbox {
    pub number: usize,
    pub addresses: Vec<String>,
    pub silence: Duration,
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
    pub fn new(config: &NodesConfig) -> Self {
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
    pub fn wait_for_all(
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
                if told || failed.get_or_insert_with(Instant::now).elapsed() > TELL {
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
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The node behind a connection, where it is one of this run that has not come yet.
    pub fn admit(&self, hello: &[u8]) -> Option<usize> {
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

    pub fn reached(&self, node: usize) {
        self.lock().peers[node].reached = true;
        self.changed.notify_all();
    }

    /// Why the nodes cannot go on together.
    pub fn failure(&self) -> Option<NodeError> {
        self.lock().failure.clone()
    }

    /// Hands what comes on a channel to `receiver`, what has come already first.
    pub fn listen(&self, channel: u32, receiver: Receive) {
        let mut state = self.lock();
        state.early.remove(&channel).into_iter().flatten().for_each(&receiver);
        let left = state.peers.iter().enumerate().filter(|(_, peer)| peer.left);
        left.for_each(|(from, _)| receiver(Delivery::Left { from }));
        state.receivers.insert(channel, receiver);
    }

    pub fn deliver(&self, from: usize, channel: u32, bytes: Vec<u8>) {
        let mut state = self.lock();
        let delivery = Delivery::Message { from, bytes };
        match state.receivers.get(&channel) {
            Some(receiver) => receiver(delivery),
            None => state.early.entry(channel).or_default().push(delivery),
        }
    }

    /// Notes the end of a node; only its first account counts.
    pub fn leave(&self, node: usize, error: Option<String>) {
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
