//! Carries gradients of tied weights between two ranks of one replica, of one process or of two.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::{ModelSpec, ModuleId, RankId};

use super::Gradient;
use crate::model::HostCopy;
use crate::runtime::connections::Processes;
use crate::runtime::group::Position;
use crate::runtime::transport::{Delivery, Transport, channel as channels, tensors};

/// Module, replica and rank.
const KEY_BYTES: usize = 3 * 4;
/// The parts of a message beside its values.
const FRAME_BYTES: usize = 1024;

/// One of the two ends of a tied decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub module: ModuleId,
    pub position: Position,
}

/// Connects the ends of this process with each other, and with those of other processes.
pub(super) struct Exchange<B: Backend> {
    processes: Option<Processes>,
    /// The ways to the ends of this process, until they are taken.
    local: HashMap<Key, Sender<Parcel<B>>>,
    /// The inboxes of ends that are not asked for yet.
    inboxes: HashMap<Key, Receiver<Parcel<B>>>,
    /// The ways to ends of this process from other processes.
    remote: HashMap<Key, Sender<Parcel<B>>>,
}

/// A gradient on its way.
enum Parcel<B: Backend> {
    Gradient(Gradient<B>),
    Remote(Vec<u8>),
}

/// This end's way to the other and back.
pub(super) struct End<B: Backend> {
    to: To<B>,
    inbox: Receiver<Parcel<B>>,
}

enum To<B: Backend> {
    Local(Sender<Parcel<B>>),
    Remote { transport: Arc<dyn Transport>, process: usize, key: Key },
}

impl<B: Backend> Exchange<B> {
    pub fn new(processes: Option<&Processes>, model: &ModelSpec) -> Self {
        if let Some(Processes { transport, .. }) = processes {
            let tied = (0..model.modules.len()).filter(|&m| model.modules[m].is_tied());
            let values = tied.map(|m| model.parameters(ModuleId::from(m)).first).max().unwrap_or(0);
            let bytes = usize::try_from(values).unwrap_or(usize::MAX).saturating_mul(4);
            transport.allow(channels::TIED, bytes.saturating_add(FRAME_BYTES));
        }
        let (local, inboxes, remote) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { processes: processes.cloned(), local, inboxes, remote }
    }

    /// The end `own`, whose other end is `other`.
    pub fn end(&mut self, own: Key, other: Key) -> End<B> {
        let is_remote = |p: &&Processes| p.grid.host(other.position) != p.transport.index();
        let Some(Processes { transport, grid }) = self.processes.as_ref().filter(is_remote) else {
            let to = self.way_to(other);
            self.way_to(own);
            let inbox = self.inboxes.remove(&own).expect("an end is taken once");
            return End { to: To::Local(to), inbox };
        };
        let (sender, inbox) = channel();
        let (transport, process) = (transport.clone(), grid.host(other.position));
        self.remote.insert(own, sender);
        End { to: To::Remote { transport, process, key: other }, inbox }
    }

    fn way_to(&mut self, key: Key) -> Sender<Parcel<B>> {
        let inboxes = &mut self.inboxes;
        let open = || {
            let (sender, inbox) = channel();
            inboxes.insert(key, inbox);
            sender
        };
        self.local.entry(key).or_insert_with(open).clone()
    }

    /// Begins to take gradients from other processes.
    pub fn listen(self) {
        let (Some(Processes { transport, grid }), remote) = (self.processes, self.remote) else {
            return;
        };
        let remote = Mutex::new(remote);
        let take = move |delivery| {
            let mut remote = remote.lock().unwrap_or_else(PoisonError::into_inner);
            match delivery {
                Delivery::Message { bytes, .. } => {
                    // A message without an end comes from a process that has failed.
                    let key = tensors::key_of(&bytes).map(Key::from_bytes);
                    if let Some(sender) = key.and_then(|key| remote.get(&key)) {
                        let _ = sender.send(Parcel::Remote(bytes));
                    }
                }
                Delivery::Left { from } => remote.retain(|key, _| {
                    let hosts = grid.hosts_of_replica(key.position.replica);
                    !hosts.contains(&from)
                }),
            }
        };
        transport.listen(channels::TIED, Box::new(take));
    }
}

impl<B: Backend> End<B> {
    /// Sends the gradient of this end; `None` if the other is gone.
    pub fn send(&self, gradient: Gradient<B>) -> Option<()> {
        match &self.to {
            To::Local(sender) => sender.send(Parcel::Gradient(gradient)).ok(),
            To::Remote { transport, process, key } => {
                let matrices: Vec<TensorData> =
                    gradient.map(HostCopy::of).map(HostCopy::data).into_iter().collect();
                let bytes = tensors::encode(&matrices, &key.to_bytes());
                transport.send(&[*process], channels::TIED, bytes);
                Some(())
            }
        }
    }

    /// The gradient of the other end; `None` if it is gone.
    pub fn receive(&self) -> Option<Gradient<B>> {
        let parcel = match &self.to {
            To::Local(_) => self.inbox.recv(),
            To::Remote { transport, .. } => transport.waiting(|| self.inbox.recv()),
        };
        match parcel.ok()? {
            Parcel::Gradient(gradient) => Some(gradient),
            Parcel::Remote(bytes) => {
                let mut matrices = tensors::decode(&bytes, KEY_BYTES)?;
                Some(matrices.pop().map(|data| Tensor::from_data(data, &B::Device::default())))
            }
        }
    }
}

impl Key {
    fn to_bytes(self) -> [u8; KEY_BYTES] {
        let Self { module, position } = self;
        let words = [module.0, position.replica as u32, position.rank.0];
        let mut bytes = [0; KEY_BYTES];
        bytes.as_chunks_mut().0.iter_mut().zip(words).for_each(|(to, w)| *to = w.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        let word = |i: usize| u32::from_le_bytes(bytes.as_chunks().0[i]);
        let position = Position { replica: word(1) as usize, rank: RankId(word(2)) };
        Self { module: ModuleId(word(0)), position }
    }
}
