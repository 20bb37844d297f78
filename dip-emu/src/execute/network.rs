//! The links between ranks: when each message leaves and arrives.

use std::collections::HashMap;

use dip_core::{Message, Seconds, TaskGraph};

/// How messages affect each other.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum LinkModel {
    /// Messages do not delay each other. Each takes its time in the plan, as in the timeline semantics.
    #[default]
    Uncontended,
    /// A rank sends one message at a time, and receives one at a time. A message occupies both ends for its time in the
    /// plan minus the latency. Messages wait for a free port in the order in which they were sent.
    Ports {
        /// The start-up time of a message, during which it occupies no port.
        latency: Seconds,
    },
}

/// All links of the pipeline.
pub struct VirtualNetwork<'a> {
    graph: &'a TaskGraph,
    model: LinkModel,
    /// When the send port of each rank is free again.
    out_free: Vec<Seconds>,
    /// When the receive port of each rank is free again.
    in_free: Vec<Seconds>,
    /// When each message arrives.
    arrivals: HashMap<Message, Seconds>,
    /// When each message leaves the port of its sender.
    released: HashMap<Message, Seconds>,
    /// Messages sent since the last call of [`VirtualNetwork::take_sent`].
    sent: Vec<Message>,
}

impl<'a> VirtualNetwork<'a> {
    pub fn new(graph: &'a TaskGraph, model: LinkModel) -> Self {
        let ports = vec![Seconds::ZERO; graph.ranks as usize];
        Self {
            graph,
            model,
            out_free: ports.clone(),
            in_free: ports,
            arrivals: HashMap::new(),
            released: HashMap::new(),
            sent: Vec::new(),
        }
    }

    /// Sends `message` at `now`.
    pub fn send(&mut self, message: &Message, now: Seconds) {
        let deps = &self.graph.task(message.consumer).deps;
        let edges = deps.iter().filter(|d| d.task == message.producer);
        let takes = edges.map(|d| d.comm_s).fold(Seconds::ZERO, Seconds::max);
        let (begin, released) = match self.model {
            LinkModel::Uncontended => (now, now),
            LinkModel::Ports { latency } => {
                let (out, inward) = (message.from.index(), message.to.index());
                let begin = now.max(self.out_free[out]).max(self.in_free[inward]);
                let free = begin + Seconds((takes.0 - latency.0).max(0.0));
                self.out_free[out] = free;
                self.in_free[inward] = free;
                (begin, free)
            }
        };
        self.arrivals.insert(*message, begin + takes);
        self.released.insert(*message, released);
        self.sent.push(*message);
    }

    /// When `message` leaves the port of its sender; `None` if it was not sent.
    pub fn released(&self, message: &Message) -> Option<Seconds> {
        self.released.get(message).copied()
    }

    /// The time at which `message` arrives; `None` if it was not sent yet or has been received.
    pub fn arrival(&self, message: &Message) -> Option<Seconds> {
        self.arrivals.get(message).copied()
    }

    /// Receives `message`. False if it has not arrived at `now`.
    pub fn receive(&mut self, message: &Message, now: Seconds) -> bool {
        let arrived = self.arrival(message).is_some_and(|arrival| arrival <= now);
        arrived && self.arrivals.remove(message).is_some()
    }

    /// The messages sent since the last call.
    pub fn take_sent(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.sent)
    }
}
