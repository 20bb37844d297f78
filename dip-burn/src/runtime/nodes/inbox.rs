//! The messages that have arrived from the other nodes, and the state of the connections with them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::wire::{Answer, AnyHello, Hello, PROTOCOL};
use super::{Delivery, NodesConfig, Receive};
use crate::runtime::group::{GroupError, START_ALIKE, quoted};

/// Interval at which a node that waits for others checks its patience.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes by which another node's hello may be longer than this node's: room for another list or another version.
const SLACK_BYTES: usize = 4096;
/// Longest message of a channel, unless the channel allows more.
const MESSAGE_BYTES: usize = 16 << 20;
/// Most bytes of messages that wait for channels without a receiver.
const EARLY_BYTES: usize = 64 << 20;
/// Bytes of a delivery beside its message.
const DELIVERY_BYTES: usize = 64;

/// The messages that have arrived from the other nodes, and the state of the connections with them.
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
    /// True once all nodes have been connected at the same time. From then on a lost connection is not awaited again.
    started: bool,
    receivers: HashMap<u32, Receive>,
    /// Longest message of the channels that allow more than [`MESSAGE_BYTES`].
    limits: HashMap<u32, usize>,
    /// Messages that arrived before their channel had a receiver.
    early: HashMap<u32, Vec<Delivery>>,
    early_bytes: usize,
    failure: Option<GroupError>,
}

/// The state of the connections with another node.
#[derive(Debug, Clone, Default)]
struct Peer {
    /// The life of the process that this node has connected to.
    reached: Option<u64>,
    /// The life of the process that has connected to this node.
    come: Option<u64>,
    /// True once the process that has connected knows that it is admitted.
    welcomed: bool,
    left: bool,
    /// The reason why it has not admitted this node yet.
    refusal: Option<String>,
}

impl Peer {
    /// True if both connections lead to the same process.
    fn is_there(&self) -> bool {
        self.welcomed && self.come == self.reached
    }
}

impl State {
    fn count_early(&mut self) {
        self.early_bytes = self.early.values().flatten().map(size_of).sum();
    }
}

/// Bytes of a delivery while it waits.
fn size_of(delivery: &Delivery) -> usize {
    match delivery {
        Delivery::Message { bytes, .. } => bytes.len() + DELIVERY_BYTES,
        Delivery::Left { .. } => DELIVERY_BYTES,
    }
}

/// The decision on a new connection.
pub(super) enum Admission {
    /// It is admitted as the connection of this node.
    Welcome(usize),
    /// It is refused with an answer. If the two were started for different runs, this node fails, too.
    Refused(Answer, Option<GroupError>),
    /// It was not opened by a node, or the run has begun: there is no answer.
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

    /// The hello of this node.
    pub fn hello(&self) -> Vec<u8> {
        let (protocol, addresses) = (PROTOCOL.into(), self.addresses.clone());
        let hello = Hello { protocol, node: self.number, addresses, life: self.life };
        serde_json::to_vec(&hello).expect("plain data has a JSON form")
    }

    /// The answer to a node that this one admits.
    pub fn welcome(&self) -> Answer {
        Answer::Welcome { life: self.life }
    }

    /// Decides on a connection by its hello.
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

    /// Refuses a node for good. If the node is in this node's list, this node fails, too.
    fn differs(&self, node: usize, what: &str, theirs: &str, ours: &str) -> Admission {
        let answer = format!("{what}: this node has {theirs}, it has {ours}; {START_ALIKE}");
        let what = format!("{what}: it has {}, this node {ours}", quoted(theirs, 2000));
        let known = node < self.addresses.len() && node != self.number;
        let error = known.then_some(GroupError::Differs { node, what, remedy: START_ALIKE });
        Admission::Refused(Answer::Never(answer), error)
    }

    /// Records that an admitted node has sent something, and therefore knows that it is admitted.
    pub fn welcomed(&self, node: usize) {
        self.lock().peers[node].welcomed = true;
        self.changed.notify_all();
    }

    /// Records that a node has admitted this node.
    pub fn reached(&self, node: usize, life: u64) {
        self.lock().peers[node].reached = Some(life);
        self.changed.notify_all();
    }

    /// Records why a node does not admit this node yet.
    pub fn refused(&self, node: usize, what: String) {
        self.lock().peers[node].refusal = Some(what);
    }

    /// True if the connections to and from a node lead to different processes: the node was started again.
    pub fn is_stale(&self, node: usize) -> bool {
        let peer = &self.lock().peers[node];
        peer.come.is_some() && peer.come != peer.reached
    }

    /// Records a lost connection to a node. Returns true if it may be opened again.
    pub fn lost_connection_to(&self, node: usize) -> bool {
        let mut state = self.lock();
        if !state.started {
            state.peers[node].reached = None;
        }
        !state.started
    }

    /// Records a lost connection from a node. Until all nodes are connected, the node may connect again.
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

    /// Ends this node if it still waits for others. A connection cannot end a run that has begun.
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

    /// The reason why the nodes cannot continue together, if any.
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

    /// Hands the messages of a channel to `receiver`, starting with those that have already arrived.
    pub fn listen(&self, channel: u32, receiver: Receive) {
        let mut state = self.lock();
        state.early.remove(&channel).into_iter().flatten().for_each(&receiver);
        state.count_early();
        let left = state.peers.iter().enumerate().filter(|(_, peer)| peer.left);
        left.for_each(|(from, _)| receiver(Delivery::Left { from }));
        state.receivers.insert(channel, receiver);
    }

    /// Hands over a message. The error says what is wrong with it.
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

    /// Records the end of a node; the first record counts.
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
