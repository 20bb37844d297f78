//! Links to ranks of other processes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::backend::Backend;
use dip_core::{Message, RankId, TaskId};

use super::channel::Inlet;
use super::payload::InTransit;
use crate::model::HostCopy;
use crate::runtime::group::{Position, ProcessGrid};
use crate::runtime::transport::{Delivery, Transport, channel, tensors};
use crate::stage::Payload;

/// Longest message between ranks of different processes, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 32;
/// Rounds that a process may be ahead of another. Iterations end together, but a process may have several groups of forwards under
/// way before another begins with the first.
const MAX_AHEAD: u64 = 1 << 12;
/// Replica, number of the iteration (two words), producer, consumer, and their ranks.
const KEY_WORDS: usize = 7;
pub(super) const KEY_BYTES: usize = 4 * KEY_WORDS;

/// One iteration or group of forwards of one replica: the replica, and how often its ranks have been connected.
type Round = (usize, u64);

/// The inboxes of some ranks, each with its number.
type Inlets<B> = Vec<(usize, Inlet<InTransit<B>>)>;

/// The links of this process to ranks of other processes.
pub(super) struct RemoteLinks<B: Backend> {
    transport: Arc<dyn Transport>,
    grid: ProcessGrid,
    rounds: Mutex<Rounds<B>>,
    /// True after the first message that does not belong here, which ends the run.
    has_rejected: AtomicBool,
}

struct Rounds<B: Backend> {
    /// By replica: iterations so far.
    counts: HashMap<usize, u64>,
    /// The inboxes of the ranks of this process.
    inlets: HashMap<Round, Inlets<B>>,
    /// Messages that came before this process began their iteration.
    early: HashMap<Round, Vec<(Message, Vec<u8>)>>,
    /// By process, true if it has ended.
    left: Vec<bool>,
}

/// One rank's end of the links of one iteration to other processes.
pub(super) struct RemoteEnd<B: Backend> {
    links: Arc<RemoteLinks<B>>,
    round: Round,
}

impl<B: Backend> RemoteLinks<B> {
    pub fn new(transport: Arc<dyn Transport>, grid: ProcessGrid) -> Arc<Self> {
        let rounds = Mutex::new(Rounds {
            counts: HashMap::new(),
            inlets: HashMap::new(),
            early: HashMap::new(),
            left: vec![false; transport.size()],
        });
        let links =
            Arc::new(Self { transport, grid, rounds, has_rejected: AtomicBool::new(false) });
        links.transport.allow(channel::LINKS, MAX_MESSAGE_BYTES);
        let receiver = Arc::downgrade(&links);
        let take = move |delivery| {
            if let Some(links) = receiver.upgrade() {
                links.take(delivery);
            }
        };
        links.transport.listen(channel::LINKS, Box::new(take));
        links
    }

    /// The next iteration of a replica, whose ranks of this process have these inboxes.
    pub fn begin(self: &Arc<Self>, replica: usize, inlets: Inlets<B>) -> RemoteEnd<B> {
        let mut rounds = self.lock();
        let count = rounds.counts.entry(replica).or_insert(0);
        *count += 1;
        let round = (replica, *count);
        for (message, bytes) in rounds.early.remove(&round).unwrap_or_default() {
            deliver(&inlets, message, bytes);
        }
        for process in (0..rounds.left.len()).filter(|&process| rounds.left[process]) {
            self.end(replica, process, &inlets);
        }
        rounds.inlets.insert(round, inlets);
        RemoteEnd { links: self.clone(), round }
    }

    fn take(&self, delivery: Delivery) {
        match delivery {
            Delivery::Message { from, bytes } => {
                if let Err(what) = self.take_message(from, bytes)
                    && !self.has_rejected.swap(true, Ordering::Relaxed)
                {
                    // Rejecting may wait for the thread that delivers.
                    let transport = self.transport.clone();
                    std::thread::spawn(move || transport.reject(from, &what));
                }
            }
            Delivery::Left { from } => {
                let mut rounds = self.lock();
                rounds.left[from] = true;
                for (&(replica, _), inlets) in &rounds.inlets {
                    self.end(replica, from, inlets);
                }
            }
        }
    }

    fn take_message(&self, from: usize, bytes: Vec<u8>) -> Result<(), String> {
        let key =
            tensors::key_of(&bytes).ok_or("has sent a message of a link that is cut short")?;
        let (round, message) = round_of(key);
        let (ranks, replicas) = (self.grid.ranks(), self.grid.replicas());
        let exists = |rank: RankId| rank.index() < ranks && round.0 < replicas;
        let host = |rank| self.grid.host(Position { replica: round.0, rank });
        let own = self.transport.index();
        if !exists(message.from)
            || !exists(message.to)
            || host(message.from) != from
            || host(message.to) != own
        {
            return Err(format!(
                "has sent message {message} of replica {}, which is not between its ranks and those of process {own}",
                round.0
            ));
        }
        let mut rounds = self.lock();
        if let Some(inlets) = rounds.inlets.get(&round) {
            deliver(inlets, message, bytes);
            return Ok(());
        }
        match rounds.counts.get(&round.0).copied().unwrap_or(0) {
            count if round.1 <= count => Ok(()),
            count if round.1 - count <= MAX_AHEAD => {
                rounds.early.entry(round).or_default().push((message, bytes));
                Ok(())
            }
            count => Err(format!("is in round {} of the links, this process in {count}", round.1)),
        }
    }

    /// Tells the inboxes of a replica that the ranks of a process have ended.
    fn end(&self, replica: usize, process: usize, inlets: &[(usize, Inlet<InTransit<B>>)]) {
        for rank in 0..self.grid.ranks() {
            let position = Position { replica, rank: RankId::from(rank) };
            if self.grid.host(position) == process && process != self.transport.index() {
                inlets.iter().for_each(|(_, inlet)| inlet.gone(rank));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rounds<B>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> RemoteEnd<B> {
    pub fn transport(&self) -> &dyn Transport {
        &*self.links.transport
    }

    /// True if a rank of the replica is on another process.
    pub fn is_remote(&self, rank: RankId) -> bool {
        rank.index() < self.links.grid.ranks() && self.host(rank) != self.links.transport.index()
    }

    pub fn send(&self, message: &Message, payload: Payload<B>) {
        // All copies start before the first one is awaited.
        let copies: Vec<HostCopy> = payload.0.into_iter().map(HostCopy::of).collect();
        let matrices: Vec<_> = copies.into_iter().map(HostCopy::data).collect();
        let bytes = tensors::encode(&matrices, &key(self.round, message));
        self.links.transport.send(&[self.host(message.to)], channel::LINKS, bytes);
    }

    fn host(&self, rank: RankId) -> usize {
        self.links.grid.host(Position { replica: self.round.0, rank })
    }
}

impl<B: Backend> Drop for RemoteEnd<B> {
    fn drop(&mut self) {
        self.links.lock().inlets.remove(&self.round);
    }
}

fn deliver<B: Backend>(inlets: &[(usize, Inlet<InTransit<B>>)], message: Message, bytes: Vec<u8>) {
    if let Some((_, inlet)) = inlets.iter().find(|(rank, _)| *rank == message.to.index()) {
        inlet.deliver(message, InTransit::Remote(bytes));
    }
}

fn key((replica, count): Round, message: &Message) -> [u8; KEY_BYTES] {
    let Message { producer, consumer, from, to } = message;
    let words: [u32; KEY_WORDS] =
        [replica as u32, count as u32, (count >> 32) as u32, producer.0, consumer.0, from.0, to.0];
    let mut key = [0; KEY_BYTES];
    key.as_chunks_mut().0.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_le_bytes());
    key
}

fn round_of(key: [u8; KEY_BYTES]) -> (Round, Message) {
    let mut words = [0; KEY_WORDS];
    let read = |(word, bytes): (&mut u32, &[u8; 4])| *word = u32::from_le_bytes(*bytes);
    words.iter_mut().zip(key.as_chunks().0).for_each(read);
    let [replica, low, high, producer, consumer, from, to] = words;
    let count = u64::from(low) | u64::from(high) << 32;
    let (producer, consumer) = (TaskId(producer), TaskId(consumer));
    ((replica as usize, count), Message { producer, consumer, from: RankId(from), to: RankId(to) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_iteration_and_its_message() {
        let message = Message {
            producer: TaskId(1),
            consumer: TaskId(u32::MAX),
            from: RankId(3),
            to: RankId(4),
        };
        let round = (5, 6 << 32 | 7);
        assert_eq!(round_of(key(round, &message)), (round, message));
    }
}
