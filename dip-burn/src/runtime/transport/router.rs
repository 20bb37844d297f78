//! Brings the messages of other processes to the parts of this one that wait for them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Delivery, Receive};
use crate::runtime::group::GroupError;

/// Longest message on a channel that allows no longer ones, in bytes.
const USUAL_BYTES: usize = 16 << 20;
/// Most bytes that may wait on channels to which nobody listens yet.
const EARLY_BYTES: usize = 256 << 20;

/// The receiving half of a [`Transport`](super::Transport): channels, their limits, and the first failure.
#[derive(Default)]
pub struct Router(Mutex<Routes>);

#[derive(Default)]
struct Routes {
    receivers: HashMap<u32, Receive>,
    /// By channel: messages to which nobody listens yet.
    early: HashMap<u32, Vec<Delivery>>,
    early_bytes: usize,
    limits: HashMap<u32, usize>,
    /// Processes that have ended, in the order of their ends.
    left: Vec<usize>,
    failure: Option<GroupError>,
}

impl Router {
    /// Longest message that a channel accepts, in bytes.
    pub fn limit(&self, channel: u32) -> usize {
        self.lock().limits.get(&channel).copied().unwrap_or(USUAL_BYTES)
    }

    /// As [`Transport::allow`](super::Transport::allow).
    pub fn allow(&self, channel: u32, most_bytes: usize) {
        let mut routes = self.lock();
        let limit = routes.limits.entry(channel).or_insert(USUAL_BYTES);
        *limit = (*limit).max(most_bytes);
    }

    /// As [`Transport::listen`](super::Transport::listen).
    pub fn listen(&self, channel: u32, receiver: Receive) {
        let mut routes = self.lock();
        let early = routes.early.remove(&channel).unwrap_or_default();
        routes.early_bytes -= early.iter().map(bytes_of).sum::<usize>();
        early.into_iter().for_each(&receiver);
        routes.left.iter().for_each(|&from| receiver(Delivery::Left { from }));
        routes.receivers.insert(channel, receiver);
    }

    /// Hands a message to the listener of its channel, or keeps it until there is one.
    ///
    /// # Errors
    /// Says why the message cannot be kept.
    pub fn deliver(&self, from: usize, channel: u32, bytes: Vec<u8>) -> Result<(), String> {
        let mut routes = self.lock();
        let delivery = Delivery::Message { from, bytes };
        if let Some(receiver) = routes.receivers.get(&channel) {
            receiver(delivery);
            return Ok(());
        }
        routes.early_bytes += bytes_of(&delivery);
        if routes.early_bytes > EARLY_BYTES {
            return Err(format!(
                "has sent more than {EARLY_BYTES} bytes for which nobody waits, the last on channel {channel}"
            ));
        }
        routes.early.entry(channel).or_default().push(delivery);
        Ok(())
    }

    /// Notes that a process has ended. Nothing more comes from it.
    pub fn left(&self, from: usize) {
        let mut routes = self.lock();
        if !routes.left.contains(&from) {
            routes.left.push(from);
            routes.receivers.values().for_each(|receiver| receiver(Delivery::Left { from }));
        }
    }

    /// Notes a failure and ends all waiting for the `size` processes of the run. False if there was a failure before.
    pub fn fail(&self, failure: GroupError, size: usize) -> bool {
        let mut routes = self.lock();
        if routes.failure.is_some() {
            return false;
        }
        routes.failure = Some(failure);
        let Routes { left, receivers, .. } = &mut *routes;
        for from in (0..size).filter(|from| !left.contains(from)).collect::<Vec<_>>() {
            left.push(from);
            receivers.values().for_each(|receiver| receiver(Delivery::Left { from }));
        }
        true
    }

    /// The first failure.
    pub fn failure(&self) -> Option<GroupError> {
        self.lock().failure.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Routes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes_of(delivery: &Delivery) -> usize {
    match delivery {
        Delivery::Message { bytes, .. } => bytes.len(),
        Delivery::Left { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn gone() -> GroupError {
        GroupError::Gone { process: 1, host: "a".into(), what: "is gone".into() }
    }

    #[test]
    fn messages_wait_for_their_listener_and_ends_come_after_them() {
        let router = Router::default();
        router.deliver(1, 7, vec![1]).unwrap();
        router.left(1);
        let (sender, inbox) = channel();
        router.listen(7, Box::new(move |delivery| drop(sender.send(delivery))));
        assert!(router.fail(gone(), 3) && !router.fail(gone(), 3));
        let found: Vec<Delivery> = inbox.try_iter().collect();
        let left = |from| Delivery::Left { from };
        let message = Delivery::Message { from: 1, bytes: vec![1] };
        assert_eq!(found, [message, left(1), left(0), left(2)]);
    }

    #[test]
    fn messages_without_a_listener_are_bounded() {
        let router = Router::default();
        let large = || vec![0; EARLY_BYTES / 2];
        assert!(router.deliver(1, 7, large()).is_ok() && router.deliver(1, 8, large()).is_ok());
        assert!(router.deliver(1, 9, vec![0]).unwrap_err().contains("channel 9"));
    }
}
