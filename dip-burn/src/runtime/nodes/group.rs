//! The nodes of a transport as a group of processes.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Delivery, NodeTransport, STOPPED};
use crate::runtime::group::{GroupError, ProcessGroup};

/// The channel of the group; ranks use the channels after it.
const CHANNEL: u32 = 0;

/// The nodes of a run. Its methods wait for the slowest node.
pub struct NodeGroup {
    transport: Arc<dyn NodeTransport>,
    inbox: Mutex<Inbox>,
}

struct Inbox {
    deliveries: Receiver<Delivery>,
    /// By node: messages that arrived before this node waited for them.
    early: Vec<VecDeque<Vec<u8>>>,
    /// Nodes that have ended.
    left: Vec<bool>,
}

impl NodeGroup {
    /// Joins the nodes that a transport connects.
    pub fn new(transport: Arc<dyn NodeTransport>) -> Self {
        let (sender, deliveries) = channel();
        // Deliveries after the end of the group are dropped.
        let hand_over = move |delivery| drop(sender.send(delivery));
        transport.listen(CHANNEL, Box::new(hand_over));
        let count = transport.count();
        let (early, left) = (vec![VecDeque::new(); count], vec![false; count]);
        Self { transport, inbox: Mutex::new(Inbox { deliveries, early, left }) }
    }

    /// The transport of the nodes.
    pub fn transport(&self) -> &Arc<dyn NodeTransport> {
        &self.transport
    }

    fn others(&self) -> Vec<usize> {
        (0..self.size()).filter(|&node| node != self.index()).collect()
    }

    /// The next message of a node. A message that arrived before the end of the node still counts.
    fn receive(&self, node: usize) -> Result<Vec<u8>, GroupError> {
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
                return Err(GroupError::Gone { node, address, what });
            }
            match inbox.deliveries.recv() {
                Ok(delivery) => inbox.take(delivery),
                Err(_) => inbox.left[node] = true,
            }
        }
    }
}

impl ProcessGroup for NodeGroup {
    fn index(&self) -> usize {
        self.transport.number()
    }

    fn size(&self) -> usize {
        self.transport.count()
    }

    fn all_gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
        self.transport.send(&self.others(), CHANNEL, own.clone());
        let mut all = Vec::with_capacity(self.size());
        for node in 0..self.size() {
            let is_own = node == self.index();
            all.push(if is_own { own.clone() } else { self.receive(node)? });
        }
        Ok(all)
    }

    fn broadcast(&self, own: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        if self.index() > 0 {
            return self.receive(0);
        }
        self.transport.send(&self.others(), CHANNEL, own.clone());
        Ok(own)
    }

    fn gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
        if self.index() > 0 {
            self.transport.send(&[0], CHANNEL, own);
            return Ok(Vec::new());
        }
        self.others().into_iter().map(|node| self.receive(node)).collect()
    }

    fn accept_bytes(&self, bytes: usize) {
        self.transport.allow(CHANNEL, bytes);
    }

    fn failure(&self) -> Option<GroupError> {
        self.transport.failure()
    }

    fn abort(&self, reason: &str) {
        self.transport.reject(self.index(), reason);
    }

    fn leave(&self, error: Option<&str>) {
        self.transport.leave(error);
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
