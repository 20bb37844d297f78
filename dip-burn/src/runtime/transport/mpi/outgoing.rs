//! What a process wants to send, and what is on its way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::Sender;

use mpi::request::{LocalScope, Request};

use super::HEARTBEAT;

/// What the other threads of this process want.
pub(super) enum Outgoing {
    /// Send a message.
    Message { to: Vec<usize>, channel: u32, bytes: Vec<u8> },
    /// Tell the others why they cannot continue.
    Failure(String),
    /// Tell the others that this process ends, and answer when they have been told.
    Leave { error: Option<String>, told: Sender<()> },
    /// Look at the network now.
    Wake,
    /// End with the others.
    End,
}

impl Outgoing {
    /// True for what overtakes messages that wait.
    pub fn is_urgent(&self) -> bool {
        match self {
            Self::Message { channel, .. } => *channel == HEARTBEAT,
            Self::Failure(_) | Self::Leave { error: Some(_), .. } => true,
            Self::Leave { error: None, .. } | Self::Wake | Self::End => false,
        }
    }
}

/// Sends or receives that have begun.
pub(super) type Open<'a, 's> = Vec<Request<'a, [u8], &'s LocalScope<'a>>>;

/// Pieces on their way to one process.
#[derive(Default)]
pub(super) struct Lane<'a, 's> {
    pub open: Open<'a, 's>,
    /// Tags and bytes of those that follow.
    pub next: VecDeque<(i32, &'a [u8])>,
}

/// The messages of a round on their way to other processes.
#[derive(Default)]
pub(super) struct Sends<'a, 's> {
    /// By process.
    pub lanes: BTreeMap<usize, Lane<'a, 's>>,
    /// What overtakes the pieces.
    pub urgent: Open<'a, 's>,
    /// Bytes of all messages of the round.
    pub bytes: usize,
}

impl Sends<'_, '_> {
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.urgent.is_empty()
    }
}
