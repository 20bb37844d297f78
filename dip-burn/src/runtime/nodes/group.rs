//! What all nodes decide together: every node calls the same methods in the same order.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Delivery, NodeError, NodeTransport, START_ALIKE, STOPPED, quoted};

/// The channel of the group; ranks have those behind it.
const CHANNEL: u32 = 0;
/// Longest difference that is quoted.
const QUOTED: usize = 200;

/// The nodes of a run, seen from one of them. Its methods wait for the slowest node.
pub struct NodeGroup {
    transport: Arc<dyn NodeTransport>,
    inbox: Mutex<Inbox>,
}

struct Inbox {
    deliveries: Receiver<Delivery>,
    /// Messages that came before they were waited for, by node.
    early: Vec<VecDeque<Vec<u8>>>,
    left: Vec<bool>,
}

impl NodeGroup {
    /// Joins the nodes that a transport connects.
    pub fn new(transport: Arc<dyn NodeTransport>) -> Self {
        let (sender, deliveries) = channel();
        // A delivery behind the end of the group is for nobody.
        let hand_over = move |delivery| drop(sender.send(delivery));
        transport.listen(CHANNEL, Box::new(hand_over));
        let count = transport.count();
        let (early, left) = (vec![VecDeque::new(); count], vec![false; count]);
        Self { transport, inbox: Mutex::new(Inbox { deliveries, early, left }) }
    }

    /// What connects the nodes.
    pub fn transport(&self) -> &Arc<dyn NodeTransport> {
        &self.transport
    }

    /// The number of this node, from 0.
    pub fn number(&self) -> usize {
        self.transport.number()
    }

    /// How many nodes there are.
    pub fn count(&self) -> usize {
        self.transport.count()
    }

    /// Whether this is the node that writes and evaluates.
    pub fn is_first(&self) -> bool {
        self.number() == 0
    }

    /// Does what this node does in a run, and tells the others how it ended, so that none waits for it.
    ///
    /// # Errors
    /// Those of `run`.
    pub fn take_part<T, E: Display>(&self, run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let ended = run();
        let error = ended.as_ref().err().map(|error| format!("{error:#}"));
        self.transport.leave(error.as_deref());
        ended
    }

    /// Takes messages of the group of up to `most_bytes`, where that is more than a transport takes on any channel.
    pub fn allow(&self, most_bytes: usize) {
        self.transport.allow(CHANNEL, most_bytes);
    }

    /// What every node has given, in the order of nodes.
    ///
    /// # Errors
    /// [`NodeError::Gone`] where a node has ended.
    pub fn all_gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, NodeError> {
        self.transport.send(&self.others(), CHANNEL, own.clone());
        let mut all = Vec::with_capacity(self.count());
        for node in 0..self.count() {
            let is_own = node == self.number();
            all.push(if is_own { own.clone() } else { self.receive(node)? });
        }
        Ok(all)
    }

    /// What the first node has given. The others give nothing that matters.
    ///
    /// # Errors
    /// [`NodeError::Gone`] where the first node has ended.
    pub fn broadcast(&self, own: Vec<u8>) -> Result<Vec<u8>, NodeError> {
        if !self.is_first() {
            return self.receive(0);
        }
        self.transport.send(&self.others(), CHANNEL, own.clone());
        Ok(own)
    }

    /// What the other nodes have given, in their order, on the first node; nothing on the others.
    ///
    /// # Errors
    /// [`NodeError::Gone`] where a node has ended.
    pub fn gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, NodeError> {
        if !self.is_first() {
            self.transport.send(&[0], CHANNEL, own);
            return Ok(Vec::new());
        }
        self.others().into_iter().map(|node| self.receive(node)).collect()
    }

    /// Makes sure that all nodes have the same text.
    ///
    /// # Errors
    /// [`NodeError::Differs`] names the first node that has another one, and [`NodeError::Gone`] one that has ended.
    pub fn agree(&self, what: &str, own: &str) -> Result<(), NodeError> {
        self.agree_or(what, own, START_ALIKE)
    }

    /// As [`agree`](Self::agree), with what to do where they differ.
    ///
    /// # Errors
    /// As [`agree`](Self::agree).
    pub fn agree_or(&self, what: &str, own: &str, remedy: &'static str) -> Result<(), NodeError> {
        let all = self.all_gather(own.as_bytes().to_vec())?;
        let Some(node) = all.iter().position(|text| text != own.as_bytes()) else { return Ok(()) };
        let difference = difference(&String::from_utf8_lossy(&all[node]), own);
        Err(NodeError::Differs { node, what: format!("{what}: {difference}"), remedy })
    }

    fn others(&self) -> Vec<usize> {
        (0..self.count()).filter(|&node| node != self.number()).collect()
    }

    /// The next message of a node; one that came before a node ended still counts.
    fn receive(&self, node: usize) -> Result<Vec<u8>, NodeError> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let failure = self.transport.failure();
            inbox.take_what_has_come();
            if let Some(bytes) = inbox.early[node].pop_front() {
                return Ok(bytes);
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
            if inbox.left[node] {
                let (address, what) = (self.transport.address(node), STOPPED.into());
                return Err(NodeError::Gone { node, address, what });
            }
            match inbox.deliveries.recv() {
                Ok(delivery) => inbox.take(delivery),
                Err(_) => inbox.left[node] = true,
            }
        }
    }
}

impl Inbox {
    fn take_what_has_come(&mut self) {
        while let Ok(delivery) = self.deliveries.try_recv() {
            self.take(delivery);
        }
    }

    fn take(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Message { from, bytes } => self.early[from].push_back(bytes),
            Delivery::Left { from } => self.left[from] = true,
        }
    }
}

/// Where two texts part, line by line.
fn difference(theirs: &str, ours: &str) -> String {
    let cut = |line: Option<&str>| match line {
        Some(line) => quoted(line.trim(), QUOTED),
        None => String::from("nothing"),
    };
    let (mut a, mut b) = (theirs.lines(), ours.lines());
    loop {
        match (a.next(), b.next()) {
            (Some(x), Some(y)) if x == y => {}
            (x, y) => return format!("it has `{}`, this node `{}`", cut(x), cut(y)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_the_first_line_that_is_not_the_same() {
        let (a, b) = ("name = 1\nseed = 3\nend", "name = 1\nseed = 4\nend");
        assert_eq!(difference(a, b), "it has `seed = 3`, this node `seed = 4`");
        assert_eq!(difference("x", "x\ny"), "it has `nothing`, this node `y`");
    }
}
