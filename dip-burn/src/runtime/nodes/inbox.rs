//! What has come from the other nodes, and how far the connections with them are.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::wire::{Answer, AnyHello, Hello, PROTOCOL};
use super::{Delivery, NodesConfig, Receive};
use crate::runtime::group::{GroupError, START_ALIKE, quoted};

/// How often it is looked whether the patience has ended.
const LOOK: Duration = Duration::from_millis(100);
/// How much longer than this node's own hello another may be: room for a list or a version that differs.
const SLACK_BYTES: usize = 4096;
/// Longest message of a channel, unless that allows more.
const MESSAGE_BYTES: usize = 16 << 20;
/// Most that is kept for those who do not listen yet.
const EARLY_BYTES: usize = 64 << 20;
/// What a delivery takes beside its bytes.
const DELIVERY_BYTES: usize = 64;

/// What has come from the other nodes.
pub(super) struct Inbox {
    pub number: usize,
    pub addresses: Vec<String>,
    pub silence: Duration,
    life: u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    peers: Vec<Peer>,
    /// Whether all nodes were there at once; a connection that is lost from then on is not waited for.
    started: bool,
    receivers: HashMap<u32, Receive>,
    /// Channels that take longer messages than others.
    limits: HashMap<u32, usize>,
    /// What came before anybody listened.
    early: HashMap<u32, Vec<Delivery>>,
    early_bytes: usize,
    failure: Option<GroupError>,
}

/// How far the connections with a node are.
#[derive(Debug, Clone, Default)]
struct Peer {
    /// The life of the process that has answered this one.
    reached: Option<u64>,
    /// The life of the process that has come to this one.
    come: Option<u64>,
    /// Whether that one has been told that it is taken.
    welcomed: bool,
    left: bool,
    /// Why it has not taken this node yet.
    refusal: Option<String>,
}

impl Peer {
    /// Whether one process is at the end of both connections.
    fn is_there(&self) -> bool {
        self.welcomed && self.come == self.reached
    }
}

impl State {
    fn count_early(&mut self) {
        self.early_bytes = self.early.values().flatten().map(size_of).sum();
    }
}

/// What a delivery takes while it waits.
fn size_of(delivery: &Delivery) -> usize {
    match delivery {
        Delivery::Message { bytes, .. } => bytes.len() + DELIVERY_BYTES,
        Delivery::Left { .. } => DELIVERY_BYTES,
    }
}

/// What becomes of a connection.
pub(super) enum Admission {
    Welcome(usize),
    /// With the failure of this node where the two were started for different runs.
    Refused(Answer, Option<GroupError>),
    /// No node has opened it.
    Stranger,
}

impl Inbox {
    pub fn new(config: &NodesConfig) -> Self {
        let life = RandomState::new().hash_one(config.number);
        let mut peers = vec![Peer::default(); config.addresses.len()];
        peers[config.number] =
            Peer { reached: Some(life), come: Some(life), welcomed: true, ..Default::default() };
        Self {
            number: config.number,
            addresses: config.addresses.clone(),
            silence: config.silence,
            life,
            state: Mutex::new(State {
                peers,
                started: false,
                receivers: HashMap::new(),
                limits: HashMap::new(),
                early: HashMap::new(),
                early_bytes: 0,
                failure: None,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there are connections from and to every node.
    pub fn wait_for_all(&self, patience: Duration) -> Result<(), GroupError> {
        let begin = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(error) = &state.failure {
                return Err(error.clone());
            }
            let Some(missing) = state.peers.iter().position(|peer| !peer.is_there()) else {
                state.started = true;
                return Ok(());
            };
            if begin.elapsed() >= patience {
                let refusal = &state.peers[missing].refusal;
                return Err(GroupError::Start {
                    field: "--nodes",
                    value: self.addresses.join(","),
                    limit: format!(
                        "node {missing} ({}) has not come within {} s{}",
                        self.addresses[missing],
                        patience.as_secs_f64(),
                        refusal.as_ref().map(|r| format!(" (it says: {r})")).unwrap_or_default()
                    ),
                    remedy: "start it, or see that both reach each other's port",
                });
            }
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What this node says when it opens a connection.
    pub fn hello(&self) -> Vec<u8> {
        let (protocol, addresses) = (PROTOCOL.into(), self.addresses.clone());
        let hello = Hello { protocol, node: self.number, addresses, life: self.life };
        serde_json::to_vec(&hello).expect("plain data has a JSON form")
    }

    /// What this node says to one that it takes.
    pub fn welcome(&self) -> Answer {
        Answer::Welcome { life: self.life }
    }

    /// Judges the hello of a connection.
    pub fn admit(&self, hello: &[u8]) -> Admission {
        if self.lock().started {
            return Admission::Stranger;
        }
        let most = self.hello().len() + SLACK_BYTES;
        if hello.len() > most {
            let what = format!("a hello has {} bytes, but at most {most} are read", hello.len());
            return Admission::Refused(Answer::Never(format!("{what}; {START_ALIKE}")), None);
        }
        let Ok(AnyHello { protocol, node }) = serde_json::from_slice(hello) else {
            return Admission::Stranger;
        };
        if protocol != PROTOCOL {
            return self.differs(node, "the protocol", &protocol, PROTOCOL);
        }
        let Ok(hello) = serde_json::from_slice::<Hello>(hello) else { return Admission::Stranger };
        if hello.addresses != self.addresses {
            let (theirs, ours) = (hello.addresses.join(","), self.addresses.join(","));
            return self.differs(node, "--nodes", &theirs, &ours);
        }
        if node == self.number {
            let what = format!("it is node {node}, too; give every process a --node of its own");
            return Admission::Refused(Answer::Never(what), None);
        }
        let mut state = self.lock();
        if state.started {
            return Admission::Stranger;
        }
        let Some(peer) = state.peers.get_mut(node) else { return Admission::Stranger };
        if peer.come.is_some() {
            let what = format!("another process is node {node} already");
            return Admission::Refused(Answer::Later(what), None);
        }
        peer.come = Some(hello.life);
        Admission::Welcome(node)
    }

    /// Refuses a node for good, and ends this one where that is one of its list.
    fn differs(&self, node: usize, what: &str, theirs: &str, ours: &str) -> Admission {
        let answer = format!("{what}: this node has {theirs}, it has {ours}; {START_ALIKE}");
        let what = format!("{what}: it has {}, this node {ours}", quoted(theirs, 2000));
        let known = node < self.addresses.len() && node != self.number;
        let error = known.then_some(GroupError::Differs { node, what, remedy: START_ALIKE });
        Admission::Refused(Answer::Never(answer), error)
    }

    /// Notes that a node has sent something since it was taken, and so knows it.
    pub fn welcomed(&self, node: usize) {
        self.lock().peers[node].welcomed = true;
        self.changed.notify_all();
    }

    /// Notes that a node takes what this one sends.
    pub fn reached(&self, node: usize, life: u64) {
        self.lock().peers[node].reached = Some(life);
        self.changed.notify_all();
    }

    /// Notes why a node does not take this one yet.
    pub fn refused(&self, node: usize, what: String) {
        self.lock().peers[node].refusal = Some(what);
    }

    /// Whether the process at the end of the connection to a node is not the one that has come from there: it was started again.
    pub fn is_stale(&self, node: usize) -> bool {
        let peer = &self.lock().peers[node];
        peer.come.is_some() && peer.come != peer.reached
    }

    /// Takes note of a lost connection to a node; whether another may be opened.
    pub fn lost_way_to(&self, node: usize) -> bool {
        let mut state = self.lock();
        if !state.started {
            state.peers[node].reached = None;
        }
        !state.started
    }

    /// Takes note of a lost connection from a node. Until all nodes are there another may come instead.
    pub fn lost(&self, node: usize, what: String) {
        let mut state = self.lock();
        if state.started {
            drop(state);
            return self.leave(node, Some(what));
        }
        (state.peers[node].come, state.peers[node].welcomed) = (None, false);
        let is_of_another =
            |d: &Delivery| !matches!(d, Delivery::Message { from, .. } if *from == node);
        state.early.values_mut().for_each(|all| all.retain(is_of_another));
        state.count_early();
    }

    /// Ends this node where it still waits for others: what a connection says cannot end a run.
    pub fn fail_to_start(&self, error: GroupError) {
        let mut state = self.lock();
        if !state.started {
            state.failure.get_or_insert(error);
            self.changed.notify_all();
        }
    }

    /// Ends this node; only the first cause counts.
    pub fn fail(&self, error: GroupError) {
        self.lock().failure.get_or_insert(error);
        self.changed.notify_all();
    }

    /// Why the nodes cannot go on together.
    pub fn failure(&self) -> Option<GroupError> {
        self.lock().failure.clone()
    }

    /// The longest message that a channel takes, in bytes.
    pub fn most_bytes(&self, channel: u32) -> usize {
        self.lock().limits.get(&channel).copied().unwrap_or(MESSAGE_BYTES)
    }

    pub fn allow(&self, channel: u32, most_bytes: usize) {
        self.lock().limits.insert(channel, most_bytes.max(MESSAGE_BYTES));
    }

    /// Hands what comes on a channel to `receiver`, what has come already first.
    pub fn listen(&self, channel: u32, receiver: Receive) {
        let mut state = self.lock();
        state.early.remove(&channel).into_iter().flatten().for_each(&receiver);
        state.count_early();
        let left = state.peers.iter().enumerate().filter(|(_, peer)| peer.left);
        left.for_each(|(from, _)| receiver(Delivery::Left { from }));
        state.receivers.insert(channel, receiver);
    }

    /// Hands over a message. An error says what is wrong with it.
    pub fn deliver(&self, from: usize, channel: u32, bytes: Vec<u8>) -> Result<(), String> {
        let mut state = self.lock();
        let delivery = Delivery::Message { from, bytes };
        let size = size_of(&delivery);
        if let Some(receiver) = state.receivers.get(&channel) {
            receiver(delivery);
            return Ok(());
        }
        if state.early_bytes + size > EARLY_BYTES {
            return Err(format!(
                "has sent more than {EARLY_BYTES} bytes that nobody waits for, the last on channel {channel}"
            ));
        }
        state.early_bytes += size;
        state.early.entry(channel).or_default().push(delivery);
        Ok(())
    }

    /// Notes the end of a node, once.
    pub fn leave(&self, node: usize, error: Option<String>) {
        let mut state = self.lock();
        if let Some(what) = error {
            let address = self.addresses[node].clone();
            state.failure.get_or_insert(GroupError::Gone { node, address, what });
        }
        if !std::mem::replace(&mut state.peers[node].left, true) {
            state.receivers.values().for_each(|receiver| receiver(Delivery::Left { from: node }));
        }
        self.changed.notify_all();
    }
}
