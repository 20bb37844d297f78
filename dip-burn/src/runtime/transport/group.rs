//! The processes of a transport as a group.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::channel::GROUP;
use super::{Delivery, STOPPED, Transport};
use crate::runtime::group::{GroupError, ProcessGroup};

/// The processes of a run. Its methods wait for the slowest process.
pub struct TransportGroup {
    transport: Arc<dyn Transport>,
    inbox: Mutex<Inbox>,
}

struct Inbox {
    deliveries: Receiver<Delivery>,
    /// By process: messages that arrived before this process waited for them.
    early: Vec<VecDeque<Vec<u8>>>,
    /// Processes that have ended.
    left: Vec<bool>,
}

impl TransportGroup {
    /// Joins the processes that a transport connects.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        let (sender, deliveries) = channel();
        // Deliveries after the end of the group are dropped.
        let hand_over = move |delivery| drop(sender.send(delivery));
        transport.listen(GROUP, Box::new(hand_over));
        let count = transport.size();
        let (early, left) = (vec![VecDeque::new(); count], vec![false; count]);
        Self { transport, inbox: Mutex::new(Inbox { deliveries, early, left }) }
    }
}

impl ProcessGroup for TransportGroup {
    fn index(&self) -> usize {
        self.transport.index()
    }

    fn size(&self) -> usize {
        self.transport.size()
    }

    fn host(&self, process: usize) -> String {
        self.transport.host(process)
    }

    fn send(&self, to: usize, bytes: Vec<u8>) {
        self.transport.send(&[to], GROUP, bytes);
    }

    /// The next message of a process. A message that arrived before the end of the process still counts.
    fn receive(&self, from: usize) -> Result<Vec<u8>, GroupError> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let failure = self.transport.failure();
            inbox.take_what_has_come();
            if let Some(bytes) = inbox.early[from].pop_front() {
                return Ok(bytes);
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
            if inbox.left[from] {
                let (host, what) = (self.transport.host(from), STOPPED.into());
                return Err(GroupError::Gone { process: from, host, what });
            }
            match self.transport.waiting(|| inbox.deliveries.recv()) {
                Ok(delivery) => inbox.take(delivery),
                Err(_) => inbox.left[from] = true,
            }
        }
    }

    fn accept_bytes(&self, bytes: usize) {
        self.transport.allow(GROUP, bytes);
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
