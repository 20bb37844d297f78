use std::sync::Arc;

use dip_burn::runtime::GroupError;
use dip_burn::runtime::transport::{Receive, Router, Transport};

/// One of several processes that are threads of a test.
pub struct Memory {
    index: usize,
    routers: Arc<[Router]>,
}

impl Memory {
    /// Transports of `count` processes that reach each other.
    pub fn connect(count: usize) -> Vec<Self> {
        let routers: Arc<[Router]> = (0..count).map(|_| Router::default()).collect();
        (0..count).map(|index| Self { index, routers: routers.clone() }).collect()
    }

    fn gone(&self, process: usize, what: &str) -> GroupError {
        GroupError::Gone { process, host: self.host(process), what: what.into() }
    }

    /// Ends all other processes with the error of this one.
    fn end_others(&self, error: &str) {
        let failure = self.gone(self.index, &format!("has ended: {error}"));
        for (_, router) in self.routers.iter().enumerate().filter(|(i, _)| *i != self.index) {
            router.fail(failure.clone(), self.size());
        }
    }
}

impl Transport for Memory {
    fn index(&self) -> usize {
        self.index
    }

    fn size(&self) -> usize {
        self.routers.len()
    }

    fn host(&self, process: usize) -> String {
        format!("machine {process}")
    }

    fn send(&self, to: &[usize], channel: u32, bytes: Vec<u8>) {
        for &to in to {
            let router = &self.routers[to];
            let limit = router.limit(channel);
            let sent = match bytes.len() <= limit {
                true => router.deliver(self.index, channel, bytes.clone()),
                false => Err(format!("has sent more than {limit} bytes")),
            };
            if let Err(what) = sent {
                Self { index: to, routers: self.routers.clone() }.reject(self.index, &what);
            }
        }
    }

    fn allow(&self, channel: u32, most_bytes: usize) {
        self.routers[self.index].allow(channel, most_bytes);
    }

    fn listen(&self, channel: u32, receiver: Receive) {
        self.routers[self.index].listen(channel, receiver);
    }

    fn reject(&self, process: usize, what: &str) {
        let failure = self.gone(process, what);
        if self.routers[self.index].fail(failure.clone(), self.size()) {
            self.end_others(&failure.to_string());
        }
    }

    fn failure(&self) -> Option<GroupError> {
        self.routers[self.index].failure()
    }

    fn leave(&self, error: Option<&str>) {
        match error {
            Some(error) => self.end_others(error),
            None => self.routers.iter().for_each(|router| router.left(self.index)),
        }
    }
}
